# ruff: noqa: N803
"""LayerNorm, linear layer and GELU of a few rows: how the MLP of a decode step begins.

    out = gelu(layer_norm(residual) @ weight^T + bias),    gelu(x) = x * sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))

Every program normalises the rows anew: they are 3 to 6 KB from the L2 cache, and a kernel that did it once would cost a
launch. What it normalises stays in float32. How the weights are read ahead: `gemv_kernel.py`.

residual: float32; out: fp32, fp16 or bf16 as the weights.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_linear, check_norm, check_rows
from zeroshot_kernels.gemv_kernel import launch_options, normalised, rows_per_program, weight_tile


def ln_fc_gelu(
    residual: Tensor,
    ln_weight: Tensor,
    ln_bias: Tensor,
    eps: float,
    weight: Tensor,
    bias: Tensor,
    *,
    out: Tensor | None = None,
    use_pdl: bool = False,
) -> Tensor:
    """gelu(layer_norm(residual) @ weight^T + bias). Returns `out`: [num_rows, n_out] in the weight's dtype.

    residual: [num_rows, n_in] float32, rows contiguous; ln_weight, ln_bias: [n_in]; weight: [n_out, n_in] and
    contiguous; bias: [n_out]. `use_pdl` needs compute capability 9.0.
    """
    num_rows, n_in = residual.shape
    n_out = len(weight)
    check_linear(n_in, weight, bias)
    check_norm(n_in, ln_weight, ln_bias)
    if out is None:
        out = torch.empty((num_rows, n_out), dtype=weight.dtype, device=weight.device)
    check_rows(residual=residual, out=out)
    block_n = rows_per_program(n_out)
    ln_fc_gelu_kernel[(triton.cdiv(n_out, block_n),)](
        residual,
        ln_weight,
        ln_bias,
        weight,
        bias,
        out,
        num_rows,
        residual.stride(0),
        out.stride(0),
        eps,
        N_IN=n_in,
        N_OUT=n_out,
        **launch_options(block_n, n_in, num_rows, use_pdl=use_pdl),
    )
    return out


@triton.jit(do_not_specialize=["num_rows"])  # or a first batch of 1 would wait for a compiler
def ln_fc_gelu_kernel(
    residual_ptr,  # [num_rows, N_IN]
    ln_weight_ptr,  # [N_IN]
    ln_bias_ptr,  # [N_IN]
    weight_ptr,  # [N_OUT, N_IN]
    bias_ptr,  # [N_OUT]
    out_ptr,  # [num_rows, N_OUT]
    num_rows,
    stride_residual_row,
    stride_out_row,
    eps,
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
    mask_k = offs_k < N_IN
    weight, bias = weight_tile(weight_ptr, bias_ptr, offs_n, offs_k, N_IN, N_OUT)
    ln_weight = tl.load(ln_weight_ptr + offs_k, mask=mask_k, other=0.0).to(tl.float32)
    ln_bias = tl.load(ln_bias_ptr + offs_k, mask=mask_k, other=0.0).to(tl.float32)
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
    for row in range(1 if ONE_ROW else num_rows):
        residual_ptrs = residual_ptr + row * stride_residual_row + offs_k
        residual = tl.load(residual_ptrs, mask=mask_k, other=0.0, cache_modifier=".cg")
        hidden = normalised(residual, ln_weight, ln_bias, mask_k, eps, N_IN)
        x = tl.sum(weight.to(tl.float32) * hidden[None, :], axis=1) + bias
        activated = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
        out_ptrs = out_ptr + row * stride_out_row + offs_n
        tl.store(out_ptrs, activated.to(out_ptr.dtype.element_ty), mask=offs_n < N_OUT)
