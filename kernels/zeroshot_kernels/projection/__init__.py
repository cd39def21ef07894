"""A linear layer of a few rows that adds to the residual stream: one of a layer's five launches at small batches."""
