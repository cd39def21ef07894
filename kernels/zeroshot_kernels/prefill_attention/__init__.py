"""Causal attention of packed prompt chunks over each sequence's paged KV cache."""
