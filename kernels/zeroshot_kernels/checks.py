"""What the kernels' launchers refuse before they launch anything. Shared by those of several ops."""

from torch import Tensor


def check_rows(**tensors: Tensor) -> None:
    """Raises ValueError unless the last axis of each is contiguous: kernels take its stride for 1."""
    for name, tensor in tensors.items():
        if tensor.stride(-1) != 1:
            raise ValueError(f"{name}: the last axis must have stride 1, has {tensor.stride(-1)}")


def check_linear(n_in: int, weight: Tensor, bias: Tensor) -> None:
    """Raises ValueError unless these are a linear layer's, contiguous: weight [n_out, n_in], bias [n_out]."""
    if weight.shape[1] != n_in or bias.shape != weight.shape[:1]:
        raise ValueError(f"weight {tuple(weight.shape)}, bias {tuple(bias.shape)}, rows of {n_in}")
    if not weight.is_contiguous():
        raise ValueError(f"weight must be contiguous, has strides {weight.stride()}")
    if weight.dtype != bias.dtype:
        raise ValueError(f"weight is {weight.dtype}, bias is {bias.dtype}")


def check_norm(n_in: int, ln_weight: Tensor, ln_bias: Tensor) -> None:
    """Raises ValueError unless these are a LayerNorm's over rows of n_in: [n_in] each."""
    if ln_weight.shape != (n_in,) or ln_bias.shape != (n_in,):
        raise ValueError(f"ln_weight {tuple(ln_weight.shape)}, ln_bias {tuple(ln_bias.shape)}, rows of {n_in}")


def check_lm_head(hidden: Tensor, lm_head: Tensor) -> None:
    """Raises ValueError unless the LM head, [vocab_size, n_embd], is for these hidden states: [num_rows, n_embd]."""
    if lm_head.shape[1] != hidden.shape[1]:
        raise ValueError(f"hidden {tuple(hidden.shape)}, lm_head {tuple(lm_head.shape)}")
    if hidden.dtype != lm_head.dtype:
        raise ValueError(f"hidden is {hidden.dtype}, lm_head is {lm_head.dtype}")
    check_rows(hidden=hidden, lm_head=lm_head)
