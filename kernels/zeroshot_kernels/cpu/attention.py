"""Attention by the C++ kernels: the signatures of the references, in float32; caches may be float16."""

import ctypes

import torch
from torch import Tensor

from zeroshot_kernels.cpu.compiler import processor_features
from zeroshot_kernels.cpu.library import library


def kv_append(key: Tensor, value: Tensor, slot_mapping: Tensor, key_cache: Tensor, value_cache: Tensor) -> None:
    """key, value: [num_tokens, n_head, head_dim], of one layout, each token's heads in one piece.

    slot_mapping: [num_tokens] int64, every slot in the cache; caches: contiguous.
    """
    library().zeroshot_kv_append(
        key.data_ptr(), value.data_ptr(), slot_mapping.data_ptr(), *_caches(key_cache, value_cache),
        *key.shape, key.stride(0),
    )  # fmt: skip


def decode_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    context_lens: list[int],
    scale: float,
) -> Tensor:
    """query: [num_seqs, n_head, head_dim], each row in one piece; block_tables: int64, contiguous."""
    num_seqs, n_head, head_dim = query.shape
    output = query.new_empty(num_seqs, n_head, head_dim)
    library().zeroshot_decode_attention(
        query.data_ptr(), *_caches(key_cache, value_cache), block_tables.data_ptr(),
        (ctypes.c_int64 * num_seqs)(*context_lens), output.data_ptr(),
        num_seqs, n_head, head_dim, key_cache.shape[1], block_tables.shape[1], query.stride(0), scale,
    )  # fmt: skip
    return output


def prefill_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    query_lens: list[int],
    context_lens: list[int],
    scale: float,
) -> Tensor:
    """query: [sum(query_lens), n_head, head_dim], each row in one piece; block_tables: int64, contiguous."""
    num_seqs, (n_head, head_dim) = len(query_lens), query.shape[1:]
    output = query.new_empty(query.shape)
    lens = ctypes.c_int64 * num_seqs
    library().zeroshot_prefill_attention(
        query.data_ptr(), *_caches(key_cache, value_cache), block_tables.data_ptr(),
        lens(*query_lens), lens(*context_lens), output.data_ptr(),
        num_seqs, n_head, head_dim, key_cache.shape[1], block_tables.shape[1], query.stride(0), scale,
    )  # fmt: skip
    return output


def converts_half() -> bool:
    """Whether this processor, x86 or Arm, has instructions for it; else the kernels' own arithmetic does it, slowly."""
    return not {"f16c", "asimd"}.isdisjoint(processor_features().split())


def is_half(cache: Tensor) -> bool:
    """Whether a cache holds float16. Raises TypeError for what is neither that nor float32."""
    if cache.dtype not in (torch.float16, torch.float32):
        raise TypeError(f"a cache in {cache.dtype}: float16 or float32")
    return cache.dtype == torch.float16


def _caches(key_cache: Tensor, value_cache: Tensor) -> tuple[int, int, bool]:
    return key_cache.data_ptr(), value_cache.data_ptr(), is_half(key_cache)
