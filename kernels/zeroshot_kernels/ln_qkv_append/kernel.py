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

from zeroshot_kernels.checks import check_caches, check_folded_linear, check_rows
from zeroshot_kernels.gemv_kernel import Tiling, normalised_products, own_rows, vector_pieces, weight_tiles
from zeroshot_kernels.kv_append.kernel import to_e4m3


def _tiling(n_embd: int, num_rows: int, bytes_per_weight: int) -> Tiling:
    """192 programs for 124M and 355M, 240 and 300 for the larger two.

    600 of half as many warps for one row of 1.5B: of the 300, which take 250 registers a thread, two fit on an SM, and
    36 would start when others have ended. Five of the 600 do.
    """
    if num_rows == 1 and bytes_per_weight == 2 and 1280 < n_embd <= 1792:
        return Tiling(2, 1, 4, registers=200)
    return Tiling(4, 1, max(1, min(4, 3 * n_embd // 768) * 2 // bytes_per_weight))


def ln_qkv_append(
    residual: Tensor,
    ln_weight: Tensor,
    eps: float,
    weight: Tensor,
    weight_sums: Tensor,
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

    residual: [num_rows, n_embd] float32, rows contiguous; ln_weight: [n_embd]; weight: [3 * n_embd, n_embd] and
    contiguous; weight_sums, bias: [3 * n_embd] float32, of `fold_norm`; slot_mapping: [num_rows] int32 or int64, all
    different: a slot that is not in the cache is skipped; key_cache, value_cache: [num_blocks, block_size, n_head,
    head_dim], any strides.
    key_scales, value_scales: [n_head] float32, if the caches are in FP8 (compute capability 8.9). `use_pdl` needs
    compute capability 9.0.
    """
    num_rows, n_embd = residual.shape
    num_blocks, page_size, n_head, head_dim = key_cache.shape
    check_folded_linear(n_embd, ln_weight, weight, weight_sums, bias)
    if len(weight) != 3 * n_embd or n_head * head_dim != n_embd or key_cache.shape != value_cache.shape:
        shapes = [tuple(tensor.shape) for tensor in (weight, key_cache, value_cache)]
        raise ValueError(f"rows of {n_embd}; weight {shapes[0]}, keys {shapes[1]}, values {shapes[2]}")
    if len(slot_mapping) != num_rows:
        raise ValueError(f"{num_rows} rows, {len(slot_mapping)} slots")
    check_caches(weight.dtype, key_cache, value_cache, key_scales, value_scales)
    if out is None:
        out = torch.empty((num_rows, n_head, head_dim), dtype=weight.dtype, device=weight.device)
    if not out.is_contiguous():
        raise ValueError(f"out must be contiguous, has strides {out.stride()}")
    check_rows(residual=residual)
    tiling = _tiling(n_embd, num_rows, weight.element_size())
    ln_qkv_append_kernel[(triton.cdiv(3 * n_embd, tiling.rows),)](
        residual,
        ln_weight,
        weight,
        weight_sums,
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
        **tiling.options(num_rows, use_pdl=use_pdl),
    )
    return out


@triton.jit(do_not_specialize=["num_rows"])  # or a first batch of 1 would wait for a compiler
def ln_qkv_append_kernel(
    residual_ptr,  # [num_rows, N_EMBD]
    ln_weight_ptr,  # [N_EMBD]
    weight_ptr,  # [3 * N_EMBD, N_EMBD]
    weight_sums_ptr,  # [3 * N_EMBD]
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
    GROUPS: tl.constexpr,
    ROWS_EACH: tl.constexpr,
    CHUNK: tl.constexpr,
    USE_PDL: tl.constexpr,
    ONE_ROW: tl.constexpr,
):
    if USE_PDL:
        tl.extra.cuda.gdc_launch_dependents()
    first = tl.program_id(0) * (GROUPS * ROWS_EACH)
    tiles = weight_tiles(weight_ptr, first, N_EMBD, 3 * N_EMBD, GROUPS, ROWS_EACH, CHUNK)
    offs_n, mask_n = own_rows(first, 3 * N_EMBD, GROUPS, ROWS_EACH)
    bias = tl.load(bias_ptr + offs_n, mask=mask_n, other=0.0)
    weight_sums = tl.load(weight_sums_ptr + offs_n, mask=mask_n, other=0.0)
    ln_weight = vector_pieces(ln_weight_ptr, N_EMBD, GROUPS, CHUNK)
    # Rows of the weight: all queries, all keys, all values. A program may have some of two of them.
    part = tl.where(mask_n, offs_n // N_EMBD, 3)
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
        residual = vector_pieces(residual_ptr + row * stride_residual_row, N_EMBD, GROUPS, CHUNK)
        slot = tl.load(slot_mapping_ptr + row, cache_modifier=".cg").to(tl.int64)
        projected = normalised_products(tiles, residual, ln_weight, weight_sums, eps, N_EMBD, GROUPS, ROWS_EACH) + bias
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
