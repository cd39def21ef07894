"""Decode attention in PyTorch: the oracle for the kernel, and the CPU backend."""

import torch
import torch.nn.functional as F
from torch import Tensor


def decode_attention_reference(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    context_lens: list[int] | Tensor,
    scale: float,
) -> Tensor:
    """softmax(scale * q @ K^T) @ V, a sequence at a time over its own context (Vaswani et al. 2017, eq. 1).

    query: [num_seqs, n_head, head_dim]; key_cache, value_cache: [num_blocks, block_size, n_head, head_dim], the new
    token's keys and values already in them; block_tables: [num_seqs, max_blocks] int64, padded with any valid block;
    context_lens: tokens of each sequence in the cache, the new one included. Whatever the blocks hold beyond them
    must be finite. Returns [num_seqs, n_head, head_dim].
    """
    if isinstance(context_lens, Tensor):
        context_lens = context_lens.tolist()
    num_seqs, n_head, head_dim = query.shape
    block_size = key_cache.shape[1]
    max_context_len = max(context_lens)
    block_ids = block_tables[:, : -(-max_context_len // block_size)].reshape(-1)
    # One row copy per block; [num_seqs, context, n_head, head_dim] -> [num_seqs, n_head, context, head_dim].
    key = key_cache.index_select(0, block_ids).view(num_seqs, -1, n_head, head_dim)[:, :max_context_len].transpose(1, 2)
    value = value_cache.index_select(0, block_ids).view(num_seqs, -1, n_head, head_dim)
    value = value[:, :max_context_len].transpose(1, 2)
    mask = None
    if min(context_lens) < max_context_len:
        lens = torch.tensor(context_lens, device=query.device)
        mask = (torch.arange(max_context_len, device=query.device) < lens[:, None])[:, None, None, :]
    output = F.scaled_dot_product_attention(query.unsqueeze(2), key, value, attn_mask=mask, scale=scale)
    return output.squeeze(2)
