"""Text in, token ids out, and back: tokenising, incremental decoding, stop strings, grammars. No torch, no HTTP."""
