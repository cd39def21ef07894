# ruff: noqa: N803
"""KV append: the keys and values of new tokens go to their slots in the paged cache.

    key_cache[slot[t] // block_size, slot[t] % block_size] = key[t], values alike

One program a token, of all heads: both copies in one launch, straight from the QKV projection's output (the strides of
`qkv.view(-1, 3, n_head, head_dim).unbind(1)`), whatever the cache's memory layout. The scheme is PagedAttention's
(Kwon et al. 2023, section 4.3).
"""

import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_caches

_ELEMENTS_PER_WARP = 256
"""Of keys, and as many of values: 8 a thread, one 16-byte load of bf16."""


def kv_append(
    key: Tensor,
    value: Tensor,
    slot_mapping: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    key_scales: Tensor | None = None,
    value_scales: Tensor | None = None,
) -> None:
    """In place on the caches: [num_blocks, block_size, n_head, head_dim], any strides.

    key, value: [num_tokens, n_head, head_dim]; slot_mapping: [num_tokens] int32 or int64, all different. A slot that
    is not in the cache is skipped: padding rows of a captured graph have one. key_scales, value_scales: [n_head]
    float32, if the caches are in FP8 (E4M3; compute capability 8.9): what is stored is key / scale, to the nearest.
    """
    num_tokens, n_head, head_dim = key.shape
    if value.shape != key.shape:
        raise ValueError(f"keys {tuple(key.shape)}, values {tuple(value.shape)}")
    if key_cache.shape != value_cache.shape or key_cache.shape[2:] != key.shape[1:]:
        raise ValueError(f"keys {tuple(key.shape)}, caches {tuple(key_cache.shape)} and {tuple(value_cache.shape)}")
    if len(slot_mapping) != num_tokens:
        raise ValueError(f"{num_tokens} tokens, {len(slot_mapping)} slots")
    if key.dtype != value.dtype:
        raise ValueError(f"keys are {key.dtype}, values {value.dtype}")
    check_caches(key.dtype, key_cache, value_cache, key_scales, value_scales)
    block_h, block_d = triton.next_power_of_2(n_head), triton.next_power_of_2(head_dim)
    kv_append_kernel[(num_tokens,)](
        key,
        value,
        slot_mapping,
        key_cache,
        value_cache,
        key_scales,
        value_scales,
        key_cache.shape[0] * key_cache.shape[1],
        *key.stride(),
        *value.stride(),
        *key_cache.stride(),
        *value_cache.stride(),
        N_HEAD=n_head,
        HEAD_DIM=head_dim,
        PAGE_SIZE=key_cache.shape[1],
        BLOCK_H=block_h,
        BLOCK_D=block_d,
        num_warps=min(8, max(1, block_h * block_d // _ELEMENTS_PER_WARP)),
    )


@triton.jit
def kv_append_kernel(
    key_ptr,  # [num_tokens, n_head, HEAD_DIM]
    value_ptr,  # [num_tokens, n_head, HEAD_DIM]
    slot_mapping_ptr,  # [num_tokens]
    key_cache_ptr,  # [num_blocks, PAGE_SIZE, n_head, HEAD_DIM]
    value_cache_ptr,  # [num_blocks, PAGE_SIZE, n_head, HEAD_DIM]
    key_scales_ptr,  # [n_head] or None
    value_scales_ptr,  # [n_head] or None
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
    N_HEAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    pid_token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slot_mapping_ptr + pid_token).to(tl.int64)
    if (slot < 0) | (slot >= num_slots):
        return
    page = slot // PAGE_SIZE
    offset = slot % PAGE_SIZE
    offs_h = tl.arange(0, BLOCK_H)[:, None]
    offs_d = tl.arange(0, BLOCK_D)[None, :]
    mask = (offs_h < N_HEAD) & (offs_d < HEAD_DIM)
    key_ptrs = key_ptr + pid_token * stride_key_token + offs_h * stride_key_head + offs_d * stride_key_dim
    value_ptrs = value_ptr + pid_token * stride_value_token + offs_h * stride_value_head + offs_d * stride_value_dim
    key = tl.load(key_ptrs, mask=mask)
    value = tl.load(value_ptrs, mask=mask)
    key_cache_ptr += page * stride_key_cache_block + offset * stride_key_cache_token
    value_cache_ptr += page * stride_value_cache_block + offset * stride_value_cache_token
    if key_scales_ptr is not None:
        ones = tl.full([BLOCK_H, BLOCK_D], 1.0, tl.float32)
        key = to_e4m3(key, ones * tl.load(key_scales_ptr + offs_h, mask=offs_h < N_HEAD, other=1.0))
        value = to_e4m3(value, ones * tl.load(value_scales_ptr + offs_h, mask=offs_h < N_HEAD, other=1.0))
    tl.store(key_cache_ptr + offs_h * stride_key_cache_head + offs_d * stride_key_cache_dim, key, mask=mask)
    tl.store(value_cache_ptr + offs_h * stride_value_cache_head + offs_d * stride_value_cache_dim, value, mask=mask)


@triton.jit
def to_e4m3(x, scales):
    """x / scales to the nearest value of E4M3, ties to even, at most 448; NaN stays. Both are float32 of one shape.

    The bits are made here and not by a conversion: so they are the same on any GPU and in the interpreter, whose
    conversion to FP8 carries nothing into the exponent.
    """
    scaled = tl.div_rn(x.to(tl.float32), scales)
    largest = tl.minimum(tl.abs(scaled), 448.0)
    bits = largest.to(tl.int32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - 960  # 3 bits behind the point; the exponent's bias is 7
    subnormal = (((largest + 24576.0) - 24576.0) * 512.0).to(tl.int32)  # float32's steps at 24576 are 1/512
    code = tl.where(largest < 0.015625, subnormal, normal)
    code = tl.where(scaled == scaled, code, 0x7F) | ((scaled.to(tl.int32, bitcast=True) >> 24) & 0x80)
    return code.to(tl.uint8).to(tl.float8e4nv, bitcast=True)
