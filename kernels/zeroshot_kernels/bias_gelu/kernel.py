# ruff: noqa: N803
"""Bias and GELU in one pass: the MLP between its two matrix products, where cuBLAS has no epilogue that does it.

    out = gelu(hidden + bias),    gelu(x) = x / 2 * (1 + tanh(u)) = x * sigmoid(2 u),
    u = sqrt(2 / pi) * (x + 0.044715 x^3)

GELU's tanh form (Hendrycks and Gimpel 2016), written with the sigmoid: the same function, one exponential.
hidden, out: [num_tokens, width] fp32, fp16 or bf16; computed in float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_rows

_LAUNCH = {"BLOCK_WIDTH": 1024, "num_warps": 4}  # 8 elements a thread: one 16-byte load of bf16; divides 4 * 768


def bias_gelu(hidden: Tensor, bias: Tensor, *, out: Tensor | None = None) -> Tensor:
    """gelu(hidden + bias), returned in `out`, which may be hidden itself. hidden: [num_tokens, width]; bias: [width].

    The last axis of hidden and out must be contiguous.
    """
    num_tokens, width = hidden.shape
    if bias.shape != (width,):
        raise ValueError(f"hidden {tuple(hidden.shape)}, bias {tuple(bias.shape)}")
    if out is None:
        out = torch.empty_like(hidden)
    check_rows(hidden=hidden, out=out)
    block_width = _LAUNCH["BLOCK_WIDTH"]
    bias_gelu_kernel[num_tokens, triton.cdiv(width, block_width)](
        hidden,
        bias,
        out,
        width,
        hidden.stride(0),
        out.stride(0),
        BLOCK_WIDTH=block_width,
        num_warps=_LAUNCH["num_warps"],
    )
    return out


@triton.jit
def bias_gelu_kernel(
    hidden_ptr,  # [num_tokens, width]
    bias_ptr,  # [width]
    out_ptr,  # [num_tokens, width]
    width,
    stride_hidden_token,
    stride_out_token,
    BLOCK_WIDTH: tl.constexpr,
):
    pid_token = tl.program_id(0).to(tl.int64)
    offs_width = tl.program_id(1) * BLOCK_WIDTH + tl.arange(0, BLOCK_WIDTH)
    mask_width = offs_width < width
    x = tl.load(hidden_ptr + pid_token * stride_hidden_token + offs_width, mask=mask_width, other=0.0).to(tl.float32)
    x += tl.load(bias_ptr + offs_width, mask=mask_width, other=0.0).to(tl.float32)
    u = 0.7978845608028654 * (x + 0.044715 * x * x * x)
    activated = x * tl.sigmoid(2.0 * u)
    out_ptrs = out_ptr + pid_token * stride_out_token + offs_width
    tl.store(out_ptrs, activated.to(out_ptr.dtype.element_ty), mask=mask_width)
