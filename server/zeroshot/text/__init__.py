"""Text in, token ids out, and back: tokenising, incremental decoding, stop strings. No torch, no HTTP."""
