# ruff: noqa: N803
"""LayerNorm, QKV projection and KV append of a few rows: how the attention of a decode step begins.

    q, k, v = layer_norm(residual) @ weight^T + bias;    key_cache[slot] = k, value_cache[slot] = v

Keys and values go to the paged cache straight from the registers they were computed in; only the queries are written
for the next kernel. How rows are normalised: `ln_fc_gelu/kernel.py`; how the weights are read ahead:
`gemv_kernel.py`.

residual: float32; queries, weights and caches: fp32, fp16 or bf16.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_caches, check_linear, check_norm, check_rows
from zeroshot_kernels.gemv_kernel import launch_options, normalised, rows_per_program, weight_tile
from zeroshot_kernels.kv_append.kernel import to_e4m3


def ln_qkv_append(
    residual: Tensor,
    ln_weight: Tensor,
    ln_bias: Tensor,
    eps: float,
    weight: Tensor,
    bias: Tensor,
    slot_mapping: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    key_scales: Tensor | None = None,
    value_scales: Tensor | None = None,
    *,
    out: Tensor | None = None,
    use_pdl: bool = False,
) -> Tensor:
    """Queries of the rows; their keys and values go into the caches. Returns `out`: [num_rows, n_head, head_dim].

    residual: [num_rows, n_embd] float32, rows contiguous; ln_weight, ln_bias: [n_embd]; weight: [3 * n_embd, n_embd]
    and contiguous; bias: [3 * n_embd]; slot_mapping: [num_rows] int32 or int64, all different: a slot that is not in
    the cache is skipped; key_cache, value_cache: [num_blocks, block_size, n_head, head_dim], any strides.
    key_scales, value_scales: [n_head] float32, if the caches are in FP8 (compute capability 8.9). `use_pdl` needs
    compute capability 9.0.
    """
    num_rows, n_embd = residual.shape
    num_blocks, page_size, n_head, head_dim = key_cache.shape
    check_linear(n_embd, weight, bias)
    if len(weight) != 3 * n_embd or n_head * head_dim != n_embd or key_cache.shape != value_cache.shape:
        shapes = [tuple(tensor.shape) for tensor in (weight, key_cache, value_cache)]
        raise ValueError(f"rows of {n_embd}; weight {shapes[0]}, keys {shapes[1]}, values {shapes[2]}")
    check_norm(n_embd, ln_weight, ln_bias)
    if len(slot_mapping) != num_rows:
        raise ValueError(f"{num_rows} rows, {len(slot_mapping)} slots")
    check_caches(weight.dtype, key_cache, value_cache, key_scales, value_scales)
    if out is None:
        out = torch.empty((num_rows, n_head, head_dim), dtype=weight.dtype, device=weight.device)
    if not out.is_contiguous():
        raise ValueError(f"out must be contiguous, has strides {out.stride()}")
    check_rows(residual=residual)
    block_n = rows_per_program(3 * n_embd)
    ln_qkv_append_kernel[(triton.cdiv(3 * n_embd, block_n),)](
        residual,
        ln_weight,
        ln_bias,
        weight,
        bias,
        slot_mapping,
        key_cache,
        value_cache,
        key_scales,
        value_scales,
        out,
        num_rows,
        num_blocks * page_size,
        residual.stride(0),
        *key_cache.stride(),
        *value_cache.stride(),
        eps,
        N_EMBD=n_embd,
        HEAD_DIM=head_dim,
        PAGE_SIZE=page_size,
        **launch_options(block_n, n_embd, num_rows, use_pdl=use_pdl),
    )
    return out


@triton.jit(do_not_specialize=["num_rows"])  # or a first batch of 1 would wait for a compiler
def ln_qkv_append_kernel(
    residual_ptr,  # [num_rows, N_EMBD]
    ln_weight_ptr,  # [N_EMBD]
    ln_bias_ptr,  # [N_EMBD]
    weight_ptr,  # [3 * N_EMBD, N_EMBD]
    bias_ptr,  # [3 * N_EMBD]
    slot_mapping_ptr,  # [num_rows]
    key_cache_ptr,  # [num_blocks, PAGE_SIZE, n_head, HEAD_DIM]
    value_cache_ptr,  # [num_blocks, PAGE_SIZE, n_head, HEAD_DIM]
    key_scales_ptr,  # [n_head] or None
    value_scales_ptr,  # [n_head] or None
    out_ptr,  # [num_rows, N_EMBD]
    num_rows,
    num_slots,
    stride_residual_row,
    stride_key_block,
    stride_key_token,
    stride_key_head,
    stride_key_dim,
    stride_value_block,
    stride_value_token,
    stride_value_head,
    stride_value_dim,
    eps,
    N_EMBD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    USE_PDL: tl.constexpr,
    ONE_ROW: tl.constexpr,
):
    if USE_PDL:
        tl.extra.cuda.gdc_launch_dependents()
    offs_n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    offs_k = tl.arange(0, BLOCK_K)
    mask_k = offs_k < N_EMBD
    weight, bias = weight_tile(weight_ptr, bias_ptr, offs_n, offs_k, N_EMBD, 3 * N_EMBD)
    ln_weight = tl.load(ln_weight_ptr + offs_k, mask=mask_k, other=0.0).to(tl.float32)
    ln_bias = tl.load(ln_bias_ptr + offs_k, mask=mask_k, other=0.0).to(tl.float32)
    # Rows of the weight: all queries, all keys, all values. A program may have some of two of them.
    part = offs_n // N_EMBD
    head = (offs_n % N_EMBD // HEAD_DIM).to(tl.int64)
    dim = offs_n % HEAD_DIM
    key_ptrs = key_cache_ptr + head * stride_key_head + dim * stride_key_dim
    value_ptrs = value_cache_ptr + head * stride_value_head + dim * stride_value_dim
    if key_scales_ptr is not None:
        key_scales = tl.load(key_scales_ptr + head, mask=part == 1, other=1.0)
        scales = tl.where(part == 2, tl.load(value_scales_ptr + head, mask=part == 2, other=1.0), key_scales)
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
    for row in range(1 if ONE_ROW else num_rows):
        slot = tl.load(slot_mapping_ptr + row, cache_modifier=".cg").to(tl.int64)
        residual_ptrs = residual_ptr + row * stride_residual_row + offs_k
        residual = tl.load(residual_ptrs, mask=mask_k, other=0.0, cache_modifier=".cg")
        hidden = normalised(residual, ln_weight, ln_bias, mask_k, eps, N_EMBD)
        projected = tl.sum(weight.to(tl.float32) * hidden[None, :], axis=1) + bias
        tl.store(out_ptr + row * N_EMBD + offs_n, projected.to(out_ptr.dtype.element_ty), mask=part == 0)
        if (slot >= 0) & (slot < num_slots):
            page = slot // PAGE_SIZE
            offset = slot % PAGE_SIZE
            row_key_ptrs = key_ptrs + page * stride_key_block + offset * stride_key_token
            row_value_ptrs = value_ptrs + page * stride_value_block + offset * stride_value_token
            if key_scales_ptr is None:
                stored = projected.to(key_cache_ptr.dtype.element_ty)
            else:
                stored = to_e4m3(projected, scales)
            tl.store(row_key_ptrs, stored, mask=part == 1)
            tl.store(row_value_ptrs, stored, mask=part == 2)
