# ruff: noqa: N803
"""Projection of a few rows onto the residual stream: how the MLP of a decode step ends.

    out = residual + hidden @ weight^T + bias

A matrix-vector product waits for its weights and for nothing else. A program owns a few rows of the weight, whole, and
has them in registers before it looks at its input. With programmatic dependent launch (PDL) that is before the kernel
ahead has ended: `gdc_launch_dependents` lets the next grid start as soon as this one is resident, `gdc_wait` returns
when the grid ahead is complete and what it wrote can be read. Up to there a program may touch weights only.

Every row of the input is worked on by itself, in one loop, by the same instructions: its result has the same bits at
any number of rows, and there is nothing to compile for another number. Sums are float32, in an order that the shapes
fix; there are no atomics.

hidden: fp32, fp16 or bf16, and so are weight and bias; the residual stream is float32.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_linear, check_rows

_ELEMENTS_PER_THREAD = 64
"""Of the weight tile: eight 16-byte loads of bf16 in flight a thread. Fewer threads meet at fewer barriers: on an H200
a layer of 124M takes 15.7 us, against 18.1 with 32 elements and 22.3 with 16 (by hand)."""


def projection(
    hidden: Tensor, weight: Tensor, bias: Tensor, residual: Tensor, *, out: Tensor | None = None, use_pdl: bool = False
) -> Tensor:
    """residual + hidden @ weight^T + bias, in float32. Returns `out`: [num_rows, n_out], which may be the residual.

    hidden: [num_rows, n_in], rows contiguous; weight: [n_out, n_in] and contiguous; bias: [n_out]; residual:
    [num_rows, n_out] float32. `use_pdl` needs compute capability 9.0.
    """
    num_rows, n_in = hidden.shape
    n_out = len(weight)
    check_linear(n_in, weight, bias)
    if residual.shape != (num_rows, n_out):
        raise ValueError(f"residual {tuple(residual.shape)}, needs {(num_rows, n_out)}")
    if not hidden.dtype == weight.dtype:
        raise ValueError(f"hidden is {hidden.dtype}, weight is {weight.dtype}")
    if out is None:
        out = torch.empty((num_rows, n_out), dtype=torch.float32, device=hidden.device)
    check_rows(hidden=hidden, residual=residual, out=out)
    block_n = rows_per_program(n_out)
    projection_kernel[(triton.cdiv(n_out, block_n),)](
        hidden,
        weight,
        bias,
        residual,
        out,
        num_rows,
        hidden.stride(0),
        residual.stride(0),
        out.stride(0),
        N_IN=n_in,
        N_OUT=n_out,
        **launch_options(block_n, n_in, num_rows, use_pdl=use_pdl),
    )
    return out


def rows_per_program(n_out: int) -> int:
    """Rows of the weight a program owns.

    For 124M on 132 SMs: 576 and 768 programs for QKV and FC, 384 for the projections. The SM with the most has 3 % to
    15 % more than its share; at twice the rows, a third more.
    """
    return 4 if n_out >= 2048 else 2


def launch_options(block_n: int, n_in: int, num_rows: int, *, use_pdl: bool) -> dict[str, Any]:
    """What all kernels that hold a tile of [block_n, n_in] weights are launched with.

    One row has code of its own. Before a loop over rows the compiler converts the whole tile, once: 200 instructions
    that a single row's loads would wait for, and up to twice the registers, so that the grid that follows finds no
    room beside this one.
    """
    block_k = triton.next_power_of_2(n_in)
    num_warps = min(16, max(1, block_n * block_k // (32 * _ELEMENTS_PER_THREAD)))
    options = {"BLOCK_N": block_n, "BLOCK_K": block_k, "USE_PDL": use_pdl, "ONE_ROW": num_rows == 1}
    options["num_warps"] = num_warps
    return options | ({"launch_pdl": True} if use_pdl else {})  # the interpreter knows no such option


@triton.jit(do_not_specialize=["num_rows"])  # or a first batch of 1 would wait for a compiler
def projection_kernel(
    hidden_ptr,  # [num_rows, N_IN]
    weight_ptr,  # [N_OUT, N_IN]
    bias_ptr,  # [N_OUT]
    residual_ptr,  # [num_rows, N_OUT]
    out_ptr,  # [num_rows, N_OUT]
    num_rows,
    stride_hidden_row,
    stride_residual_row,
    stride_out_row,
    N_IN: tl.constexpr,
    N_OUT: tl.constexpr,
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
    mask_k = offs_k < N_IN
    weight, bias = weight_tile(weight_ptr, bias_ptr, offs_n, offs_k, N_IN, N_OUT)
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
    for row in range(1 if ONE_ROW else num_rows):
        hidden_ptrs = hidden_ptr + row * stride_hidden_row + offs_k
        hidden = tl.load(hidden_ptrs, mask=mask_k, other=0.0, cache_modifier=".cg").to(tl.float32)
        residual_ptrs = residual_ptr + row * stride_residual_row + offs_n
        residual = tl.load(residual_ptrs, mask=mask_n, other=0.0, cache_modifier=".cg")
        product = tl.sum(weight.to(tl.float32) * hidden[None, :], axis=1)
        tl.store(out_ptr + row * stride_out_row + offs_n, residual + (product + bias), mask=mask_n)


@triton.jit
def weight_tile(weight_ptr, bias_ptr, offs_n, offs_k, N_IN: tl.constexpr, N_OUT: tl.constexpr):
    """[BLOCK_N, BLOCK_K] of a linear layer's weight, in its dtype, zeros outside, and [BLOCK_N] of its bias, float32.

    Each weight is read by one program, once: it is the first that the L2 cache may forget.
    """
    mask = (offs_n < N_OUT)[:, None] & (offs_k < N_IN)[None, :]
    weight_ptrs = weight_ptr + offs_n.to(tl.int64)[:, None] * N_IN + offs_k[None, :]
    weight = tl.load(weight_ptrs, mask=mask, other=0.0, eviction_policy="evict_first")
    return weight, tl.load(bias_ptr + offs_n, mask=offs_n < N_OUT, other=0.0).to(tl.float32)


@triton.jit
def normalised(x, ln_weight, ln_bias, mask_k, eps, N_IN: tl.constexpr):
    """LayerNorm of one row, [BLOCK_K] float32, zeros outside. The variance is taken about the mean."""
    mean = tl.sum(x, axis=0) / N_IN
    centred = tl.where(mask_k, x - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / N_IN
    return centred * (1.0 / tl.sqrt(variance + eps)) * ln_weight + ln_bias
