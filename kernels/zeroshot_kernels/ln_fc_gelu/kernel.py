# ruff: noqa: N803
"""LayerNorm, linear layer and GELU of a few rows: how the MLP of a decode step begins.

    out = gelu(layer_norm(residual) @ weight^T + bias),    gelu(x) = x * sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))

Every warp takes a row's mean and variance anew: they are a few shuffles, and a kernel that did it once would cost a
launch. The LayerNorm comes folded (`folded_norm.py`). How the weights are read ahead: `gemv_kernel.py`.

residual: float32; out: fp32, fp16 or bf16 as the weights.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_folded_linear, check_rows
from zeroshot_kernels.gemv_kernel import Tiling, normalised_products, own_rows, vector_pieces, weight_tiles


def _tiling(n_in: int, n_out: int, num_rows: int, bytes_per_weight: int) -> Tiling:
    """128 programs for 124M and 355M, 320 and 400 for the larger two.

    640 for one row of 1.5B, as for its QKV projection: of the 400, 136 would start when others have ended.
    """
    if num_rows == 1 and bytes_per_weight == 2 and 1280 < n_in <= 1792:
        return Tiling(2, 1, 5, registers=200)
    num_warps = 8 if n_in <= 1024 else 4
    return Tiling(num_warps, 1, max(1, min(4, n_out // (128 * num_warps)) * 2 // bytes_per_weight))


def ln_fc_gelu(
    residual: Tensor,
    ln_weight: Tensor,
    eps: float,
    weight: Tensor,
    weight_sums: Tensor,
    bias: Tensor,
    *,
    out: Tensor | None = None,
    use_pdl: bool = False,
) -> Tensor:
    """gelu of a LayerNorm and a linear layer. Returns `out`: [num_rows, n_out] in the weight's dtype.

    residual: [num_rows, n_in] float32, rows contiguous; ln_weight: [n_in]; weight: [n_out, n_in] and contiguous;
    weight_sums, bias: [n_out] float32, of `fold_norm`. `use_pdl` needs compute capability 9.0.
    """
    num_rows, n_in = residual.shape
    n_out = len(weight)
    check_folded_linear(n_in, ln_weight, weight, weight_sums, bias)
    if out is None:
        out = torch.empty((num_rows, n_out), dtype=weight.dtype, device=weight.device)
    check_rows(residual=residual, out=out)
    tiling = _tiling(n_in, n_out, num_rows, weight.element_size())
    options = tiling.options(num_rows, use_pdl=use_pdl)
    if use_pdl and num_rows > 1 and tiling.num_warps == 8:
        options["maxnreg"] = 128  # more than half an SM's would leave the next grid no room to start beside it
    ln_fc_gelu_kernel[(triton.cdiv(n_out, tiling.rows),)](
        residual,
        ln_weight,
        weight,
        weight_sums,
        bias,
        out,
        num_rows,
        residual.stride(0),
        out.stride(0),
        eps,
        N_IN=n_in,
        N_OUT=n_out,
        **options,
    )
    return out


@triton.jit(do_not_specialize=["num_rows"])  # or a first batch of 1 would wait for a compiler
def ln_fc_gelu_kernel(
    residual_ptr,  # [num_rows, N_IN]
    ln_weight_ptr,  # [N_IN]
    weight_ptr,  # [N_OUT, N_IN]
    weight_sums_ptr,  # [N_OUT]
    bias_ptr,  # [N_OUT]
    out_ptr,  # [num_rows, N_OUT]
    num_rows,
    stride_residual_row,
    stride_out_row,
    eps,
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
    bias = tl.load(bias_ptr + offs_n, mask=mask_n, other=0.0)
    weight_sums = tl.load(weight_sums_ptr + offs_n, mask=mask_n, other=0.0)
    ln_weight = vector_pieces(ln_weight_ptr, N_IN, GROUPS, CHUNK)
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
    for row in range(1 if ONE_ROW else num_rows):
        residual = vector_pieces(residual_ptr + row * stride_residual_row, N_IN, GROUPS, CHUNK)
        x = normalised_products(tiles, residual, ln_weight, weight_sums, eps, N_IN, GROUPS, ROWS_EACH) + bias
        activated = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
        tl.store(out_ptr + row * stride_out_row + offs_n, activated.to(out_ptr.dtype.element_ty), mask=mask_n)
