"""LayerNorm, QKV projection and KV append of a few rows: one of a layer's five launches at small batches."""
