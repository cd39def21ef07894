"""The LM head and the choice of a token in one: unfiltered rows never have their logits written to memory."""
