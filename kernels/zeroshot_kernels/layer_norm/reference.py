"""Residual addition and LayerNorm in PyTorch: the oracle for the kernel."""

import torch
import torch.nn.functional as F
from torch import Tensor


def layer_norm_reference(
    hidden: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """x = residual + hidden; (x - mean(x)) / sqrt(var(x) + eps) * weight + bias over the last axis (Ba et al. 2016).

    hidden, residual: [num_tokens, n_embd]; weight, bias: [n_embd]. Returns the normalised rows in hidden's dtype and
    the new residual in float32 (float64 if the residual is). The variance is that of the population.
    """
    dtype = torch.promote_types(residual.dtype, torch.float32)
    new_residual = residual.to(dtype) + hidden.to(dtype)
    normalised = F.layer_norm(new_residual, weight.shape, weight.to(dtype), bias.to(dtype), eps)
    return normalised.to(hidden.dtype), new_residual
