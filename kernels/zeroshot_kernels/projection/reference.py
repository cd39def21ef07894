"""Projection onto the residual stream in PyTorch: the oracle for the kernel."""

import torch
from torch import Tensor


def projection_reference(hidden: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
    """residual + hidden @ weight^T + bias, in float32 (float64 if the residual is).

    hidden: [num_rows, n_in]; weight: [n_out, n_in]; bias: [n_out]; residual: [num_rows, n_out].
    """
    dtype = torch.promote_types(residual.dtype, torch.float32)
    return residual.to(dtype) + (hidden.to(dtype) @ weight.to(dtype).t() + bias.to(dtype))
