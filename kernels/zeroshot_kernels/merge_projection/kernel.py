# ruff: noqa: N803
"""Merging the splits of attention, output projection and residual of a few rows: how a decode step's attention ends.

    out = residual + attention @ weight^T + bias,
    attention[h] = sum_s w[s, h] output[s, h] / sum_s w[s, h] sum[s, h],    w[s, h] = exp2(max[s, h] - max_s max[s, h])

Every program merges all heads anew, split by split in the order of the context, into one row in registers: it is 12 KB
from the L2 cache at a context of 512 for 124M. So a program's warps share that row, and rows of the weight too, where
in `projection/kernel.py` each has its own. How the weights are read ahead: `gemv_kernel.py`.

Splits: float32, of `split_attention`; weight and bias: fp32, fp16 or bf16; the residual stream is float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_linear, check_rows
from zeroshot_kernels.gemv_kernel import launch_options
from zeroshot_kernels.split_attention.reference import SPLIT_SIZE

_NUM_WARPS = 8
"""All of them merge, and all have a part of each row of the weight."""

_TILE_BYTES = 32768
"""Of the weight: 8 rows to a program, 4 of 1.5B in fp32; 96 programs for 124M, 200 for 1.5B."""

_SPLITS_AT_ONCE = 8
"""Whose outputs are on their way at once: all of GPT-2's context."""


def merge_projection(
    partial_output: Tensor,
    partial_max: Tensor,
    partial_sum: Tensor,
    context_lens: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor,
    *,
    out: Tensor | None = None,
    use_pdl: bool = False,
) -> Tensor:
    """residual + attention @ weight^T + bias, in float32. Returns `out`: [num_rows, n_out], which may be the residual.

    partial_output: [num_rows or more, num_splits, n_head, head_dim], partial_max, partial_sum: [..., n_head], float32
    and contiguous; context_lens: [num_rows] int32: splits past a context are not read, a context of 0 tokens is zeros;
    weight: [n_out, n_head * head_dim] and contiguous; bias: [n_out]; residual: [num_rows, n_out] float32. `use_pdl`
    needs compute capability 9.0.
    """
    rows, max_splits, n_head, head_dim = partial_output.shape
    num_rows, n_out = residual.shape
    check_linear(n_head * head_dim, weight, bias)
    if len(weight) != n_out or rows < num_rows or len(context_lens) != num_rows:
        raise ValueError(
            f"residual {tuple(residual.shape)}; weight {tuple(weight.shape)}, splits of {rows} rows, "
            f"{len(context_lens)} context lengths"
        )
    for name, tensor in {"partial_max": partial_max, "partial_sum": partial_sum}.items():
        if tensor.shape != (rows, max_splits, n_head):
            raise ValueError(f"{name} {tuple(tensor.shape)}, partial_output {tuple(partial_output.shape)}")
    if not (partial_output.is_contiguous() and partial_max.is_contiguous() and partial_sum.is_contiguous()):
        raise ValueError(f"splits must be contiguous, outputs have strides {partial_output.stride()}")
    if out is None:
        out = torch.empty((num_rows, n_out), dtype=torch.float32, device=residual.device)
    check_rows(residual=residual, out=out)
    block_k = triton.next_power_of_2(n_head * head_dim)
    block_n = min(8, max(1, _TILE_BYTES // (block_k * weight.element_size())))
    merge_projection_kernel[(triton.cdiv(n_out, block_n),)](
        partial_output,
        partial_max,
        partial_sum,
        context_lens,
        weight,
        bias,
        residual,
        out,
        num_rows,
        residual.stride(0),
        out.stride(0),
        N_HEAD=n_head,
        HEAD_DIM=head_dim,
        N_OUT=n_out,
        SPLIT_SIZE=SPLIT_SIZE,
        MAX_SPLITS=max_splits,
        BLOCK_S=min(max_splits, _SPLITS_AT_ONCE),
        BLOCK_D=head_dim & -head_dim,  # the largest power of 2 that divides it
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        **launch_options(_NUM_WARPS, num_rows, use_pdl=use_pdl),
    )
    return out


@triton.jit(do_not_specialize=["num_rows"])  # or a first batch of 1 would wait for a compiler
def merge_projection_kernel(
    partial_output_ptr,  # [num_rows or more, MAX_SPLITS, N_HEAD, HEAD_DIM]
    partial_max_ptr,  # [num_rows or more, MAX_SPLITS, N_HEAD]
    partial_sum_ptr,  # [num_rows or more, MAX_SPLITS, N_HEAD]
    context_lens_ptr,  # [num_rows]
    weight_ptr,  # [N_OUT, N_HEAD * HEAD_DIM]
    bias_ptr,  # [N_OUT]
    residual_ptr,  # [num_rows, N_OUT]
    out_ptr,  # [num_rows, N_OUT]
    num_rows,
    stride_residual_row,
    stride_out_row,
    N_HEAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    N_OUT: tl.constexpr,
    SPLIT_SIZE: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    USE_PDL: tl.constexpr,
    ONE_ROW: tl.constexpr,
):
    if USE_PDL:
        tl.extra.cuda.gdc_launch_dependents()
    offs_n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    offs_k = tl.arange(0, BLOCK_K)
    mask_n = offs_n < N_OUT
    mask = mask_n[:, None] & (offs_k < N_HEAD * HEAD_DIM)[None, :]
    weight_ptrs = weight_ptr + offs_n.to(tl.int64)[:, None] * (N_HEAD * HEAD_DIM) + offs_k[None, :]
    weight = tl.load(weight_ptrs, mask=mask, other=0.0, eviction_policy="evict_first")
    bias = tl.load(bias_ptr + offs_n, mask=mask_n, other=0.0).to(tl.float32)
    # Read before the grid ahead has ended: older than this step, see `split_attention/kernel.py`.
    context_len = tl.load(context_lens_ptr, cache_modifier=".cg")
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
    for row in range(1 if ONE_ROW else num_rows):
        residual_ptrs = residual_ptr + row * stride_residual_row + offs_n
        residual = tl.load(residual_ptrs, mask=mask_n, other=0.0, cache_modifier=".cg")
        num_splits = tl.cdiv(context_len, SPLIT_SIZE)
        context_len = tl.load(context_lens_ptr + row + 1, mask=row + 1 < num_rows, other=0, cache_modifier=".cg")
        attended = _merged(
            partial_output_ptr,
            partial_max_ptr,
            partial_sum_ptr,
            row * MAX_SPLITS,
            num_splits,
            N_HEAD,
            HEAD_DIM,
            MAX_SPLITS,
            BLOCK_S,
            BLOCK_K // BLOCK_D,
            BLOCK_D,
        )
        product = tl.sum(weight.to(tl.float32) * attended[None, :], axis=1)
        tl.store(out_ptr + row * stride_out_row + offs_n, residual + (product + bias), mask=mask_n)


@triton.jit
def _merged(
    partial_output_ptr,  # [..., N_HEAD, HEAD_DIM]
    partial_max_ptr,  # [..., N_HEAD]
    partial_sum_ptr,  # [..., N_HEAD]
    first_split,
    num_splits,
    N_HEAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Attention's output of one row: [BLOCK_C * BLOCK_D] float32, all heads, zeros outside.

    In pieces of BLOCK_D elements, which are of one head: its maximum and sum are loaded once a piece.
    """
    offs_c = tl.arange(0, BLOCK_C)
    offs_d = tl.arange(0, BLOCK_D)
    head = offs_c * BLOCK_D // HEAD_DIM
    acc_max = tl.full([BLOCK_C], -1e38, tl.float32)  # finite, so that nothing in it yet gives no inf - inf
    acc_sum = tl.zeros([BLOCK_C], tl.float32)
    acc_output = tl.zeros([BLOCK_C, BLOCK_D], tl.float32)
    for start in range(0, 1 if MAX_SPLITS <= BLOCK_S else num_splits, BLOCK_S):
        maxima, sums, outputs = (), (), ()
        for s in tl.static_range(BLOCK_S):
            split = first_split + start + s
            mask = head < tl.where(start + s < num_splits, N_HEAD, 0)
            at = split * N_HEAD + head
            output_ptrs = partial_output_ptr + split * (N_HEAD * HEAD_DIM) + (offs_c * BLOCK_D)[:, None]
            maxima += (tl.load(partial_max_ptr + at, mask=mask, other=float("-inf")),)  # type: ignore[assignment]
            sums += (tl.load(partial_sum_ptr + at, mask=mask, other=0.0),)  # type: ignore[assignment]
            outputs += (tl.load(output_ptrs + offs_d[None, :], mask=mask[:, None], other=0.0),)  # type: ignore[assignment]
        new_max = acc_max
        for s in tl.static_range(BLOCK_S):
            new_max = tl.maximum(new_max, maxima[s])
        rescale = tl.exp2(acc_max - new_max)
        acc_sum *= rescale
        acc_output *= rescale[:, None]
        for s in tl.static_range(BLOCK_S):
            scale = tl.exp2(maxima[s] - new_max)
            acc_sum += sums[s] * scale
            acc_output += outputs[s] * scale[:, None]
        acc_max = new_max
    attended = acc_output / tl.where(acc_sum == 0.0, 1.0, acc_sum)[:, None]
    return tl.reshape(attended, [BLOCK_C * BLOCK_D])
