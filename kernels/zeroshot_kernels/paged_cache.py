"""Keys and values into the paged cache and one sequence's out of it, for the references.

A cache in FP8 (E4M3: Micikevicius et al. 2022, "FP8 formats for deep learning") holds each head's values divided by
that head's scale. Where a scale is a power of two, E4M3's rounding is all that it costs.
"""

import torch
from torch import Tensor

E4M3_MAX = 448.0


def to_e4m3(tensor: Tensor, scales: Tensor) -> Tensor:
    """tensor / scales, to the nearest value of E4M3, at most E4M3_MAX; NaN stays. [..., n_head, head_dim], [n_head]."""
    scaled = tensor.to(torch.promote_types(tensor.dtype, torch.float32)) / scales[:, None]
    return scaled.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)


def indexable(cache: Tensor) -> Tensor:
    """The same memory; of FP8, which not every device can index, its bytes."""
    return cache.view(torch.uint8) if cache.dtype == torch.float8_e4m3fn else cache


def sequence_tokens(
    cache: Tensor,
    block_table: list[int],
    num_tokens: int,
    scales: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """cache: [num_blocks, block_size, n_head, head_dim]; block_table: block ids, at least as many as are needed.

    scales: [n_head], if the cache is in FP8: its values are multiplied by them.

    Returns [num_tokens, n_head, head_dim] in dtype. If the cache has that dtype and the blocks follow one another, as
    the block manager hands them out when it can, that is a view; else a copy, which takes four times as long as the
    attention itself.
    """
    num_blocks = -(-num_tokens // cache.shape[1])
    first, needed = block_table[0], block_table[:num_blocks]
    is_one_run = needed == list(range(first, first + num_blocks))
    blocks = cache[first : first + num_blocks] if is_one_run else indexable(cache)[needed].view(cache.dtype)
    tokens = blocks.flatten(0, 1)[:num_tokens]
    return tokens.to(dtype) if scales is None else tokens.to(dtype) * scales[:, None].to(dtype)
