# ruff: noqa: N803
"""Residual addition and LayerNorm (Ba et al. 2016), what GPT-2 does between any two matrix products.

    x = residual + hidden
    out = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias,    residual_out = x

One program a row, which stays in registers: read once, written once. Mean and variance are taken in float32, the
variance about the mean (not as E[x^2] - E[x]^2, which cancels: GPT-2 has channels in the hundreds). The residual stream
stays in float32 through all layers, since every layer adds to it and rounding would add up.

hidden: [num_tokens, n_embd] fp32, fp16 or bf16, and so is out; residual: any of them, residual_out fp32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_rows

_NUM_WARPS = {1024: 4, 2048: 8}
"""By padded row: 8 elements a thread, one 16-byte load of bf16. Rows of 768 to 1600 are GPT-2's."""


def layer_norm(
    hidden: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    *,
    out: Tensor | None = None,
    residual_out: Tensor | None = None,
    use_pdl: bool = False,
) -> tuple[Tensor, Tensor]:
    """x = residual + hidden, normalised over the last axis. Returns (`out`, `residual_out`): [num_tokens, n_embd] both.

    hidden, residual: [num_tokens, n_embd], the last axis contiguous; weight, bias: [n_embd]. `out` has hidden's dtype,
    `residual_out` is float32 and may be the residual itself. `use_pdl` (`gemv_kernel.py`) needs compute capability 9.0.
    """
    num_tokens, n_embd = hidden.shape
    if residual.shape != hidden.shape:
        raise ValueError(f"hidden {tuple(hidden.shape)}, residual {tuple(residual.shape)}")
    if weight.shape != (n_embd,) or bias.shape != (n_embd,):
        raise ValueError(f"weight {tuple(weight.shape)}, bias {tuple(bias.shape)}, rows of {n_embd}")
    if out is None:
        out = torch.empty_like(hidden)
    if residual_out is None:
        residual_out = torch.empty(residual.shape, dtype=torch.float32, device=residual.device)
    check_rows(hidden=hidden, residual=residual, out=out, residual_out=residual_out)
    block_e = triton.next_power_of_2(n_embd)
    layer_norm_kernel[(num_tokens,)](
        hidden,
        residual,
        weight,
        bias,
        out,
        residual_out,
        hidden.stride(0),
        residual.stride(0),
        out.stride(0),
        residual_out.stride(0),
        eps,
        N_EMBD=n_embd,
        BLOCK_E=block_e,
        USE_PDL=use_pdl,
        num_warps=_NUM_WARPS.get(block_e, 4 if block_e < 1024 else 16),
        **({"launch_pdl": True} if use_pdl else {}),  # the interpreter knows no such option
    )
    return out, residual_out


@triton.jit
def layer_norm_kernel(
    hidden_ptr,  # [num_tokens, N_EMBD]
    residual_ptr,  # [num_tokens, N_EMBD]
    weight_ptr,  # [N_EMBD]
    bias_ptr,  # [N_EMBD]
    out_ptr,  # [num_tokens, N_EMBD]
    residual_out_ptr,  # [num_tokens, N_EMBD]
    stride_hidden_token,
    stride_residual_token,
    stride_out_token,
    stride_residual_out_token,
    eps,
    N_EMBD: tl.constexpr,
    BLOCK_E: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    if USE_PDL:
        tl.extra.cuda.gdc_launch_dependents()
    pid_token = tl.program_id(0).to(tl.int64)
    offs_e = tl.arange(0, BLOCK_E)
    mask_e = offs_e < N_EMBD
    weight = tl.load(weight_ptr + offs_e, mask=mask_e).to(tl.float32)
    bias = tl.load(bias_ptr + offs_e, mask=mask_e).to(tl.float32)
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
    hidden_ptrs = hidden_ptr + pid_token * stride_hidden_token + offs_e
    hidden = tl.load(hidden_ptrs, mask=mask_e, other=0.0, cache_modifier=".cg")
    residual_ptrs = residual_ptr + pid_token * stride_residual_token + offs_e
    residual = tl.load(residual_ptrs, mask=mask_e, other=0.0, cache_modifier=".cg")
    x = residual.to(tl.float32) + hidden.to(tl.float32)
    tl.store(residual_out_ptr + pid_token * stride_residual_out_token + offs_e, x, mask=mask_e)
    mean = tl.sum(x, axis=0) / N_EMBD
    centred = tl.where(mask_e, x - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / N_EMBD
    normalised = centred * (1.0 / tl.sqrt(variance + eps)) * weight + bias
    out_ptrs = out_ptr + pid_token * stride_out_token + offs_e
    tl.store(out_ptrs, normalised.to(out_ptr.dtype.element_ty), mask=mask_e)
