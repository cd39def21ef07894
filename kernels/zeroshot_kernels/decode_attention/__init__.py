"""Attention of one new token per sequence over its paged KV cache."""
