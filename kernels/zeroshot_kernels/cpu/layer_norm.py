"""LayerNorm by the C++ kernel."""

from torch import Tensor

from zeroshot_kernels.cpu.library import library


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axis (Ba et al. 2016).

    x: [num_tokens, n_embd] float32, contiguous; weight, bias: [n_embd].
    """
    output = x.new_empty(x.shape)
    library().zeroshot_layer_norm(x.data_ptr(), weight.data_ptr(), bias.data_ptr(), output.data_ptr(), *x.shape, eps)
    return output
