"""GPT-2 itself: its configuration, its weights, its forward pass. Checkpoint names stay in here."""
