"""What the kernels' launchers refuse before they launch anything. Shared by those of several ops."""

import torch
from torch import Tensor


def check_rows(**tensors: Tensor) -> None:
    """Raises ValueError unless the last axis of each is contiguous: kernels take its stride for 1."""
    for name, tensor in tensors.items():
        if tensor.stride(-1) != 1:
            raise ValueError(f"{name}: the last axis must have stride 1, has {tensor.stride(-1)}")


def check_linear(n_in: int, weight: Tensor, bias: Tensor) -> None:
    """Raises ValueError unless these are a linear layer's, of one dtype: weight [n_out, n_in], bias [n_out]."""
    check_weight(n_in, weight, bias)
    if weight.dtype != bias.dtype:
        raise ValueError(f"weight is {weight.dtype}, bias is {bias.dtype}")


def check_weight(n_in: int, weight: Tensor, bias: Tensor) -> None:
    """Raises ValueError unless the weight is contiguous, [n_out, n_in], and the bias [n_out]."""
    if weight.shape[1] != n_in or bias.shape != weight.shape[:1]:
        raise ValueError(f"weight {tuple(weight.shape)}, bias {tuple(bias.shape)}, rows of {n_in}")
    if not weight.is_contiguous():
        raise ValueError(f"weight must be contiguous, has strides {weight.stride()}")


def check_folded_linear(n_in: int, ln_weight: Tensor, weight: Tensor, weight_sums: Tensor, bias: Tensor) -> None:
    """Raises ValueError unless these are a LayerNorm over rows of n_in folded past a linear layer by `fold_norm`."""
    if ln_weight.shape != (n_in,):
        raise ValueError(f"ln_weight {tuple(ln_weight.shape)}, rows of {n_in}")
    if weight_sums.shape != bias.shape:
        raise ValueError(f"weight_sums {tuple(weight_sums.shape)}, bias {tuple(bias.shape)}")
    if not weight_sums.dtype == bias.dtype == torch.float32:
        raise ValueError(f"weight_sums and bias must be {torch.float32}, are {weight_sums.dtype} and {bias.dtype}")
    check_weight(n_in, weight, bias)


def check_lm_head(hidden: Tensor, lm_head: Tensor) -> None:
    """Raises ValueError unless the LM head, [vocab_size, n_embd], is for these hidden states: [num_rows, n_embd]."""
    if lm_head.shape[1] != hidden.shape[1]:
        raise ValueError(f"hidden {tuple(hidden.shape)}, lm_head {tuple(lm_head.shape)}")
    if hidden.dtype != lm_head.dtype:
        raise ValueError(f"hidden is {hidden.dtype}, lm_head is {lm_head.dtype}")
    check_rows(hidden=hidden, lm_head=lm_head)


def check_sequences(num_seqs: int, block_tables: Tensor, **lengths: Tensor) -> None:
    """Raises ValueError unless each sequence has a block table and lengths."""
    counts = {"block_tables": len(block_tables)} | {name: len(values) for name, values in lengths.items()}
    if set(counts.values()) != {num_seqs}:
        found = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
        raise ValueError(f"{num_seqs} sequences, {found}")


def check_heads(
    query: Tensor, key_cache: Tensor, value_cache: Tensor, key_scales: Tensor | None, value_scales: Tensor | None
) -> None:
    """Raises ValueError unless the paged caches are for queries [any number, n_head, head_dim]."""
    if key_cache.shape != value_cache.shape or key_cache.shape[2:] != query.shape[1:]:
        raise ValueError(
            f"query {tuple(query.shape)}, keys {tuple(key_cache.shape)}, values {tuple(value_cache.shape)}"
        )
    check_caches(query.dtype, key_cache, value_cache, key_scales, value_scales)
    if key_cache.shape[1] % 16:
        raise ValueError(f"block_size must be a multiple of 16, is {key_cache.shape[1]}")


def check_caches(
    dtype: torch.dtype, key_cache: Tensor, value_cache: Tensor, key_scales: Tensor | None, value_scales: Tensor | None
) -> None:
    """Raises ValueError unless the caches hold `dtype`, or FP8 where there are scales for each head."""
    expected = dtype if key_scales is None else torch.float8_e4m3fn
    if not key_cache.dtype == value_cache.dtype == expected:
        found = f"caches are {key_cache.dtype} and {value_cache.dtype}"
        raise ValueError(
            f"of {dtype} {'with' if key_scales is not None else 'without'} scales; {found}, not {expected}"
        )
    shapes = [None if scales is None else tuple(scales.shape) for scales in (key_scales, value_scales)]
    if shapes not in ([None, None], [(key_cache.shape[2],)] * 2):
        raise ValueError(f"scales {shapes[0]} and {shapes[1]}, for {key_cache.shape[2]} heads")
