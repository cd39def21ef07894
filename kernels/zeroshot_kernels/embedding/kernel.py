# ruff: noqa: N803
"""Embeddings of tokens and positions: how a decode step of a few rows begins.

    out = wte[token_ids] + wpe[positions]

As PyTorch ops that is four launches. A program takes a row. It is the first of a step's kernels, each of which may
start before the one ahead has ended (`gemv_kernel.py`): while it runs, the first layer loads its weights.

It lets the next one start only when all of the step before is complete and can be read. The layers' kernels rely on
that for contexts, their lengths and their tables, which they read before they wait.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_rows


def embedding(
    token_ids: Tensor,
    positions: Tensor,
    wte: Tensor,
    wpe: Tensor,
    *,
    out: Tensor | None = None,
    use_pdl: bool = False,
) -> Tensor:
    """wte[token_ids] + wpe[positions], added in float32. Returns `out`: [num_rows, n_embd] float32.

    token_ids, positions: [num_rows] int64, contiguous; wte: [vocab_size, n_embd], wpe: [n_positions, n_embd], rows
    contiguous. `use_pdl` needs compute capability 9.0.
    """
    num_rows, n_embd = len(token_ids), wte.shape[1]
    if len(positions) != num_rows or wpe.shape[1] != n_embd:
        raise ValueError(
            f"{num_rows} tokens, {len(positions)} positions; embeddings of {n_embd} and {wpe.shape[1]} elements"
        )
    check_rows(wte=wte, wpe=wpe)
    if out is None:
        out = torch.empty((num_rows, n_embd), dtype=torch.float32, device=wte.device)
    embedding_kernel[(num_rows,)](
        token_ids,
        positions,
        wte,
        wpe,
        out,
        wte.stride(0),
        wpe.stride(0),
        out.stride(0),
        N_EMBD=n_embd,
        BLOCK_D=triton.next_power_of_2(n_embd),
        USE_PDL=use_pdl,
        num_warps=4,
        **({"launch_pdl": True} if use_pdl else {}),
    )
    return out


@triton.jit
def embedding_kernel(
    token_ids_ptr,  # [num_rows]
    positions_ptr,  # [num_rows]
    wte_ptr,  # [vocab_size, N_EMBD]
    wpe_ptr,  # [n_positions, N_EMBD]
    out_ptr,  # [num_rows, N_EMBD]
    stride_wte_token,
    stride_wpe_position,
    stride_out_row,
    N_EMBD: tl.constexpr,
    BLOCK_D: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    if USE_PDL:
        # In this order, unlike elsewhere: once a later kernel of the step has started, the step before is complete.
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    row = tl.program_id(0).to(tl.int64)
    offs = tl.arange(0, BLOCK_D)
    mask = offs < N_EMBD
    token_id = tl.load(token_ids_ptr + row, cache_modifier=".cg").to(tl.int64)
    position = tl.load(positions_ptr + row, cache_modifier=".cg").to(tl.int64)
    token = tl.load(wte_ptr + token_id * stride_wte_token + offs, mask=mask, other=0.0).to(tl.float32)
    place = tl.load(wpe_ptr + position * stride_wpe_position + offs, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * stride_out_row + offs, token + place, mask=mask)
