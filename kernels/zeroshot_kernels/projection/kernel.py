# ruff: noqa: N803
"""Projection of a few rows onto the residual stream: how the MLP of a decode step ends.

    out = residual + hidden @ weight^T + bias

How the weights are read ahead: `gemv_kernel.py`.

hidden: fp32, fp16 or bf16, and so are weight and bias; the residual stream is float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_linear, check_rows
from zeroshot_kernels.gemv_kernel import launch_options, rows_per_program, weight_tile


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
