"""Decode attention in PyTorch: the oracle for the kernels, and what a CPU without them runs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshot_kernels.paged_cache import sequence_tokens


def decode_attention_reference(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    context_lens: list[int] | Tensor,
    scale: float,
    key_scales: Tensor | None = None,
    value_scales: Tensor | None = None,
) -> Tensor:
    """softmax(scale * q @ K^T) @ V, a sequence at a time over its own context (Vaswani et al. 2017, eq. 1).

    query: [num_seqs, n_head, head_dim]; key_cache, value_cache: [num_blocks, block_size, n_head, head_dim], the new
    token's keys and values already in them; block_tables: [num_seqs, max_blocks] int64, padded with anything;
    context_lens: tokens of each sequence in the cache, the new one included; key_scales, value_scales: [n_head], if the
    caches are in FP8. Returns [num_seqs, n_head, head_dim].
    """
    if isinstance(context_lens, Tensor):
        context_lens = context_lens.tolist()
    outputs = []
    for q, block_table, context_len in zip(query.unsqueeze(2), block_tables.tolist(), context_lens, strict=True):
        key = sequence_tokens(key_cache, block_table, context_len, key_scales, query.dtype).transpose(0, 1)
        value = sequence_tokens(value_cache, block_table, context_len, value_scales, query.dtype).transpose(0, 1)
        outputs.append(F.scaled_dot_product_attention(q[None], key[None], value[None], scale=scale))
    return torch.cat(outputs).squeeze(2)
