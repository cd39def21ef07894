"""LayerNorm, linear layer and GELU in PyTorch: the oracle for the kernel."""

import torch.nn.functional as F
from torch import Tensor

from zeroshot_kernels.folded_norm import folded_linear_reference


def ln_fc_gelu_reference(
    residual: Tensor, ln_weight: Tensor, eps: float, weight: Tensor, weight_sums: Tensor, bias: Tensor
) -> Tensor:
    """gelu of a LayerNorm and a linear layer, GELU in its tanh form: [num_rows, n_out] in the weight's dtype.

    residual: [num_rows, n_in]; ln_weight: [n_in]; weight: [n_out, n_in]; weight_sums, bias: [n_out], of `fold_norm`.
    Computed in float32 (float64 if the residual is).
    """
    hidden = folded_linear_reference(residual, ln_weight, eps, weight, weight_sums, bias)
    return F.gelu(hidden, approximate="tanh").to(weight.dtype)
