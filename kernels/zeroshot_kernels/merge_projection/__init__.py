"""Merging attention's splits and projecting a few rows: one of a layer's five launches at small batches."""
