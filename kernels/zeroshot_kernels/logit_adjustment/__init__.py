"""Logit bias and penalties, applied to the few entries of the logits that have any."""
