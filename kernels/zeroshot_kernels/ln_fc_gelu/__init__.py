"""LayerNorm, a linear layer and GELU of a few rows: one of a layer's five launches at small batches."""
