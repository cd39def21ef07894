# ruff: noqa: N803
"""KV append: the keys and values of new tokens go to their slots in the paged cache.

    key_cache[slot[t] // block_size, slot[t] % block_size] = key[t], values alike

One program a token and head: both copies in one launch, straight from the QKV projection's output (the strides of
`qkv.view(-1, 3, n_head, head_dim).unbind(1)`), whatever the cache's memory layout. The scheme is PagedAttention's
(Kwon et al. 2023, section 4.3).
"""

import triton
import triton.language as tl
from torch import Tensor

_LAUNCH = {"num_warps": 1}  # a head is at most 512 bytes: one warp moves it in one instruction


def kv_append(key: Tensor, value: Tensor, slot_mapping: Tensor, key_cache: Tensor, value_cache: Tensor) -> None:
    """In place on the caches: [num_blocks, block_size, n_head, head_dim], any strides.

    key, value: [num_tokens, n_head, head_dim]; slot_mapping: [num_tokens] int32 or int64, all different. A slot that
    is not in the cache is skipped: padding rows of a captured graph have one.
    """
    num_tokens, n_head, head_dim = key.shape
    if value.shape != key.shape:
        raise ValueError(f"keys {tuple(key.shape)}, values {tuple(value.shape)}")
    if key_cache.shape != value_cache.shape or key_cache.shape[2:] != key.shape[1:]:
        raise ValueError(f"keys {tuple(key.shape)}, caches {tuple(key_cache.shape)} and {tuple(value_cache.shape)}")
    if len(slot_mapping) != num_tokens:
        raise ValueError(f"{num_tokens} tokens, {len(slot_mapping)} slots")
    if not key.dtype == value.dtype == key_cache.dtype == value_cache.dtype:
        raise ValueError(f"keys are {key.dtype}, values {value.dtype}, caches {key_cache.dtype}, {value_cache.dtype}")
    kv_append_kernel[num_tokens, n_head](
        key,
        value,
        slot_mapping,
        key_cache,
        value_cache,
        key_cache.shape[0] * key_cache.shape[1],
        *key.stride(),
        *value.stride(),
        *key_cache.stride(),
        *value_cache.stride(),
        HEAD_DIM=head_dim,
        PAGE_SIZE=key_cache.shape[1],
        BLOCK_D=triton.next_power_of_2(head_dim),
        num_warps=_LAUNCH["num_warps"],
    )


@triton.jit
def kv_append_kernel(
    key_ptr,  # [num_tokens, n_head, HEAD_DIM]
    value_ptr,  # [num_tokens, n_head, HEAD_DIM]
    slot_mapping_ptr,  # [num_tokens]
    key_cache_ptr,  # [num_blocks, PAGE_SIZE, n_head, HEAD_DIM]
    value_cache_ptr,  # [num_blocks, PAGE_SIZE, n_head, HEAD_DIM]
    num_slots,
    stride_key_token,
    stride_key_head,
    stride_key_dim,
    stride_value_token,
    stride_value_head,
    stride_value_dim,
    stride_key_cache_block,
    stride_key_cache_token,
    stride_key_cache_head,
    stride_key_cache_dim,
    stride_value_cache_block,
    stride_value_cache_token,
    stride_value_cache_head,
    stride_value_cache_dim,
    HEAD_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    pid_token = tl.program_id(0).to(tl.int64)
    pid_head = tl.program_id(1).to(tl.int64)
    slot = tl.load(slot_mapping_ptr + pid_token).to(tl.int64)
    if (slot < 0) | (slot >= num_slots):
        return
    page = slot // PAGE_SIZE
    offset = slot % PAGE_SIZE
    offs_d = tl.arange(0, BLOCK_D)
    mask_d = offs_d < HEAD_DIM
    key_row_ptr = key_ptr + pid_token * stride_key_token + pid_head * stride_key_head
    value_row_ptr = value_ptr + pid_token * stride_value_token + pid_head * stride_value_head
    key = tl.load(key_row_ptr + offs_d * stride_key_dim, mask=mask_d)
    value = tl.load(value_row_ptr + offs_d * stride_value_dim, mask=mask_d)
    key_cache_ptr += page * stride_key_cache_block + offset * stride_key_cache_token
    key_cache_ptr += pid_head * stride_key_cache_head
    value_cache_ptr += page * stride_value_cache_block + offset * stride_value_cache_token
    value_cache_ptr += pid_head * stride_value_cache_head
    tl.store(key_cache_ptr + offs_d * stride_key_cache_dim, key, mask=mask_d)
    tl.store(value_cache_ptr + offs_d * stride_value_cache_dim, value, mask=mask_d)
