"""Decode attention that leaves its splits unmerged: one of a layer's five launches at small batches."""
