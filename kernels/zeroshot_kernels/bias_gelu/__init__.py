"""Bias and GELU of the MLP, after its first matrix product."""
