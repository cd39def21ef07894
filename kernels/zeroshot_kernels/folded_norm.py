"""A LayerNorm folded past the linear layer behind it, so that the product need not wait for the row's mean.

    layer_norm(x) @ weight^T + bias = ((x * ln_weight) @ weight^T - mean(x) * weight_sums) / sqrt(var(x) + eps) + bias'

The two vectors, `weight_sums` and bias', are known before any row is. What is taken out at the end is as large as the
mean: a row whose mean is a hundred times its deviation loses two digits. Rows of GPT-2's residual stream have means
smaller than their deviation.
"""

import torch
from torch import Tensor


def fold_norm(ln_weight: Tensor, ln_bias: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """(weight @ ln_weight, weight @ ln_bias + bias): [n_out] float32 each, summed in float64.

    ln_weight, ln_bias: [n_in]; weight: [n_out, n_in]; bias: [n_out].
    """
    weight = weight.double()
    return (weight @ ln_weight.double()).float(), (weight @ ln_bias.double() + bias.double()).float()


def folded_linear_reference(
    x: Tensor, ln_weight: Tensor, eps: float, weight: Tensor, weight_sums: Tensor, bias: Tensor
) -> Tensor:
    """[num_rows, n_out] in float32 (float64 if x is): the right side of the equation above. x: [num_rows, n_in]."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    x = x.to(dtype)
    variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
    products = (x * ln_weight.to(dtype)) @ weight.to(dtype).t() - mean * weight_sums.to(dtype)
    return products / (variance + eps).sqrt() + bias.to(dtype)
