"""The ops GPT-2 inference is made of, one folder each: `reference.py` is plain PyTorch (oracle and CPU backend)."""
