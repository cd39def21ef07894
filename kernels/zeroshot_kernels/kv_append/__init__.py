"""Writes new tokens' keys and values into the paged KV cache."""
