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
from zeroshot_kernels.gemv_kernel import Tiling, own_rows, products, vector_pieces, weight_tiles


def _tiling(n_in: int, num_rows: int, bytes_per_weight: int) -> Tiling:
    """For one row: 96 and 128 programs for 124M and 355M, 320 and 800 for the larger two, whose rows four warps share.

    For more rows, which take more registers, programs of half as many warps.
    """
    if n_in <= 4096:
        return Tiling(8 if num_rows == 1 and bytes_per_weight == 2 else 4, 1, 1)
    return Tiling(4, 4, max(1, (4 if n_in <= 5120 else 2) * 2 // bytes_per_weight))


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
    tiling = _tiling(n_in, num_rows, weight.element_size())
    projection_kernel[(triton.cdiv(n_out, tiling.rows),)](
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
        **tiling.options(num_rows, use_pdl=use_pdl),
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
    GROUPS: tl.constexpr,
    ROWS_EACH: tl.constexpr,
    CHUNK: tl.constexpr,
    USE_PDL: tl.constexpr,
    ONE_ROW: tl.constexpr,
):
    if USE_PDL:
        tl.extra.cuda.gdc_launch_dependents()
    first = tl.program_id(0) * (GROUPS * ROWS_EACH)
    tiles = weight_tiles(weight_ptr, first, N_IN, N_OUT, GROUPS, ROWS_EACH, CHUNK)
    offs_n, mask_n = own_rows(first, N_OUT, GROUPS, ROWS_EACH)
    bias = tl.load(bias_ptr + offs_n, mask=mask_n, other=0.0).to(tl.float32)
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
    for row in range(1 if ONE_ROW else num_rows):
        loaded = vector_pieces(hidden_ptr + row * stride_hidden_row, N_IN, GROUPS, CHUNK)
        residual = tl.load(residual_ptr + row * stride_residual_row + offs_n, mask=mask_n, other=0.0)
        hidden = ()
        for piece in tl.static_range(len(loaded)):
            hidden += (loaded[piece].to(tl.float32),)  # type: ignore[assignment]
        product = products(tiles, hidden, GROUPS, ROWS_EACH)
        tl.store(out_ptr + row * stride_out_row + offs_n, residual + (product + bias), mask=mask_n)
