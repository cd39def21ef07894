"""Bias and GELU in PyTorch: the oracle for the kernel."""

import torch
import torch.nn.functional as F
from torch import Tensor


def bias_gelu_reference(hidden: Tensor, bias: Tensor) -> Tensor:
    """gelu(hidden + bias), GELU in its tanh form as GPT-2 has it (Hendrycks and Gimpel 2016).

    hidden: [num_tokens, width]; bias: [width]. Computed in float32 (float64 if hidden is), returned in hidden's dtype.
    """
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    return F.gelu(hidden.to(dtype) + bias.to(dtype), approximate="tanh").to(hidden.dtype)
