"""Prefill attention in PyTorch: the oracle for the kernels, and what a CPU without them runs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshot_kernels.paged_cache import sequence_tokens


def prefill_attention_reference(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    query_lens: list[int] | Tensor,
    context_lens: list[int] | Tensor,
    scale: float,
    key_scales: Tensor | None = None,
    value_scales: Tensor | None = None,
) -> Tensor:
    """Causal softmax(scale * q @ K^T) @ V of each sequence's newest tokens over all its tokens so far.

    query: [num_tokens, n_head, head_dim], sequences packed one after the other; key_cache, value_cache:
    [num_blocks, block_size, n_head, head_dim], the new tokens' keys and values already in them; block_tables:
    [num_seqs, max_blocks] int64; context_lens: tokens of each sequence in the cache, the new ones included.
    The last query of a sequence sees all of its context. key_scales, value_scales: [n_head], if the caches are in FP8.
    Returns [num_tokens, n_head, head_dim]; rows past sum(query_lens) are zero.
    """
    if isinstance(query_lens, Tensor):
        query_lens = query_lens.tolist()
    if isinstance(context_lens, Tensor):
        context_lens = context_lens.tolist()
    outputs = query.new_zeros(query.shape)
    start = 0
    for block_table, query_len, context_len in zip(block_tables.tolist(), query_lens, context_lens, strict=True):
        q = query[start : start + query_len].transpose(0, 1).unsqueeze(0)
        k = sequence_tokens(key_cache, block_table, context_len, key_scales, q.dtype).transpose(0, 1).unsqueeze(0)
        v = sequence_tokens(value_cache, block_table, context_len, value_scales, q.dtype).transpose(0, 1).unsqueeze(0)
        if query_len == context_len:
            output = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        else:
            mask = torch.ones(query_len, context_len, dtype=torch.bool, device=query.device)
            mask = mask.tril(diagonal=context_len - query_len)
            output = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
        outputs[start : start + query_len] = output.squeeze(0).transpose(0, 1)
        start += query_len
    return outputs
