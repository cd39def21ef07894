"""LayerNorm, linear layer and GELU in PyTorch: the oracle for the kernel."""

import torch
import torch.nn.functional as F
from torch import Tensor


def ln_fc_gelu_reference(
    residual: Tensor, ln_weight: Tensor, ln_bias: Tensor, eps: float, weight: Tensor, bias: Tensor
) -> Tensor:
    """gelu(layer_norm(residual) @ weight^T + bias), GELU in its tanh form, [num_rows, n_out] in the weight's dtype.

    residual: [num_rows, n_in]; ln_weight, ln_bias: [n_in]; weight: [n_out, n_in]; bias: [n_out]. Computed in float32
    (float64 if the residual is).
    """
    dtype = torch.promote_types(residual.dtype, torch.float32)
    hidden = F.layer_norm(residual.to(dtype), ln_weight.shape, ln_weight.to(dtype), ln_bias.to(dtype), eps)
    hidden = hidden @ weight.to(dtype).t() + bias.to(dtype)
    return F.gelu(hidden, approximate="tanh").to(weight.dtype)
