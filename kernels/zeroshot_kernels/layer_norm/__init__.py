"""Residual addition and LayerNorm in one pass over the rows."""
