# ruff: noqa: N803
"""LM head and sampling fused: from hidden states to a token id each, without a [num_rows, vocab_size] round trip.

    z = hidden @ lm_head^T,    token = argmax_v z[v] / temperature + g[v],    g Gumbel noise

(FlashSampling, arXiv 2603.15854.) Each program multiplies a block of rows with a tile of the vocabulary, and keeps of
it what `sampling` keeps of one: its maximum, two sums of exponentials, its best perturbed token. `sampling`'s second
kernel merges the tiles. So greedy and temperature rows never have their logits written; for rows with filters or
penalties pass `logits`, which is then written too, and give those rows to `sampling`.

Worth it where the product waits for memory, at up to about 64 rows; above that, cuBLAS and `sampling` are faster.
hidden, lm_head: fp32, fp16 or bf16; logits are float32.
"""

import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_lm_head
from zeroshot_kernels.gemv_kernel import prefetch_lines
from zeroshot_kernels.logprobs.kernel import lm_head_tile
from zeroshot_kernels.sampling.kernel import (
    TILE_SIZE,
    SamplingWorkspace,
    choose_kernel,
    choose_options,
    empty_samples,
    tile_statistics,
)

_BLOCK_K = {2: 64, 4: 32}
"""By bytes an element; the same for all row counts, so that a row's logits are summed in the same order."""

_LAUNCH = {16: (4, 4), 32: (8, 4), 64: (8, 3)}
"""BLOCK_M: warps, stages. A stage is 16 KB of bf16 weights; four of them let three programs fit on an SM, and the 393
tiles of GPT-2's vocabulary are one wave on 132 SMs. Noise for more than 16 x 128 tokens takes eight warps."""

_PREFETCHED_BYTES = tl.constexpr(64 * 1024)
"""Of a program's tile, a third of 124M's, before it waits for the kernel ahead: of all tiles 26 MB, half of an H200's
L2. Whole rows, so that each step of the product finds some there and has others to ask memory for."""


def lm_head_sampling(
    hidden: Tensor,
    lm_head: Tensor,
    temperatures: Tensor,
    seeds: Tensor,
    choices: Tensor,
    positions: Tensor,
    *,
    logits: Tensor | None = None,
    with_logprobs: bool = True,
    out: tuple[Tensor, Tensor, Tensor] | None = None,
    workspace: SamplingWorkspace | None = None,
    use_pdl: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """A token of each row. Returns `out`: token ids int64, their log-probabilities float32, is_valid bool: [num_rows].

    hidden: [num_rows, n_embd] and lm_head: [vocab_size, n_embd], last axis contiguous; temperatures: [num_rows]
    float32; seeds, choices, positions: [num_rows] int64; logits: [num_rows, vocab_size] float32, filled if given. A row
    whose logits have NaN or inf in them is not valid: its token id is 0 and its log-probability NaN; so are all unless
    `with_logprobs`. `use_pdl` (`gemv_kernel.py`) needs compute capability 9.0.
    """
    num_rows, n_embd = hidden.shape
    vocab_size = len(lm_head)
    check_lm_head(hidden, lm_head)
    parameters = (temperatures, seeds, choices, positions)
    if any(len(parameter) != num_rows for parameter in parameters):
        raise ValueError(f"{num_rows} rows, parameters for {[len(parameter) for parameter in parameters]}")
    if logits is not None and (logits.shape != (num_rows, vocab_size) or logits.stride(1) != 1):
        raise ValueError(f"logits {tuple(logits.shape)} of stride {logits.stride()}, needs {(num_rows, vocab_size)}")
    if workspace is None:
        workspace = SamplingWorkspace.allocate(num_rows, vocab_size, hidden.device)
    num_tiles = triton.cdiv(vocab_size, TILE_SIZE)
    if len(workspace.tile_max) < num_rows or workspace.tile_max.shape[1] != num_tiles:
        raise ValueError(f"workspace for {tuple(workspace.tile_max.shape)}, needs {(num_rows, num_tiles)}")
    if out is None:
        out = empty_samples(num_rows, hidden.device)
    block_m = min(max(triton.next_power_of_2(num_rows), min(_LAUNCH)), max(_LAUNCH))
    num_warps, num_stages = _LAUNCH[block_m]
    early = {"launch_pdl": True} if use_pdl else {}  # the interpreter knows no such option
    lm_head_sampling_kernel[triton.cdiv(num_rows, block_m), num_tiles](
        hidden,
        lm_head,
        *parameters,
        *workspace[:6],
        logits,
        num_rows,
        vocab_size,
        num_tiles,
        hidden.stride(0),
        lm_head.stride(0),
        0 if logits is None else logits.stride(0),
        N_EMBD=n_embd,
        IS_SINGLE_ROW=num_rows == 1,
        BLOCK_M=block_m,
        TILE_SIZE=TILE_SIZE,
        BLOCK_K=_BLOCK_K[hidden.element_size()],
        FOR_LOGPROBS=with_logprobs,
        USE_PDL=use_pdl,
        num_warps=num_warps,
        num_stages=num_stages,
        **early,
    )
    choose_kernel[(num_rows,)](
        None,
        temperatures,
        None,
        None,
        None,
        *parameters[1:],
        *workspace[:6],
        None,
        *out,
        vocab_size,
        num_tiles,
        0,
        **choose_options(num_tiles, 0, with_logprobs=with_logprobs, use_pdl=use_pdl),
    )
    return out


@triton.jit(do_not_specialize=["num_rows"])  # or a first batch of 1 or 16 would wait for a compiler
def lm_head_sampling_kernel(
    hidden_ptr,  # [num_rows, N_EMBD]
    lm_head_ptr,  # [vocab_size, N_EMBD]
    temperatures_ptr,  # [num_rows]
    seeds_ptr,  # [num_rows]
    choices_ptr,  # [num_rows]
    positions_ptr,  # [num_rows]
    tile_max_ptr,  # [num_rows, num_tiles], and so are the five below
    tile_sum_ptr,
    tile_scaled_sum_ptr,
    tile_score_ptr,
    tile_logit_ptr,
    tile_token_ptr,
    logits_ptr,  # [num_rows, vocab_size] or None
    num_rows,
    vocab_size,
    num_tiles,
    stride_hidden_row,
    stride_lm_head_token,
    stride_logits_row,
    N_EMBD: tl.constexpr,
    IS_SINGLE_ROW: tl.constexpr,
    BLOCK_M: tl.constexpr,
    TILE_SIZE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    FOR_LOGPROBS: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    if USE_PDL:
        tl.extra.cuda.gdc_launch_dependents()
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    pid_tile = tl.program_id(1)
    offs_v = pid_tile * TILE_SIZE + tl.arange(0, TILE_SIZE)
    mask_m = offs_m < num_rows
    mask_v = offs_v < vocab_size
    if USE_PDL:
        first = pid_tile.to(tl.int64) * TILE_SIZE * stride_lm_head_token
        last = (vocab_size - 1).to(tl.int64) * stride_lm_head_token + N_EMBD - 1
        prefetch_lines(lm_head_ptr, first, last, _PREFETCHED_BYTES)
        tl.extra.cuda.gdc_wait()
    logits = lm_head_tile(
        hidden_ptr,
        lm_head_ptr,
        offs_m,
        offs_v,
        num_rows,
        vocab_size,
        stride_hidden_row,
        stride_lm_head_token,
        N_EMBD,
        BLOCK_M,
        TILE_SIZE,
        BLOCK_K,
    )
    if logits_ptr is not None:
        logits_ptrs = logits_ptr + offs_m[:, None] * stride_logits_row + offs_v[None, :]
        tl.store(logits_ptrs, logits, mask=mask_m[:, None] & mask_v[None, :])
    if IS_SINGLE_ROW:
        # The other 15 rows only fill the matrix instruction: noise for them would be 15 parts of 16 of what follows.
        logits = tl.sum(tl.where((offs_m == 0)[:, None], logits, 0.0), axis=0)[None, :]
        offs_m = tl.zeros([1], tl.int64)
        mask_m = offs_m < num_rows
    # -inf is legal where a token was forbidden, but not as a product: there it is an overflow.
    logits = tl.where(tl.abs(logits) < float("inf"), logits, float("nan"))
    logits = tl.where(mask_v[None, :], logits, float("-inf"))
    largest, total, scaled_total, score, logit, token = tile_statistics(
        logits,
        tl.zeros(offs_m.shape, tl.int32) + pid_tile * TILE_SIZE,
        tl.load(temperatures_ptr + offs_m, mask=mask_m, other=0.0),
        tl.load(seeds_ptr + offs_m, mask=mask_m, other=0),
        tl.load(choices_ptr + offs_m, mask=mask_m, other=0),
        tl.load(positions_ptr + offs_m, mask=mask_m, other=0),
        TILE_SIZE,
        False,  # no filters
        FOR_LOGPROBS,
    )
    offs = offs_m * num_tiles + pid_tile
    tl.store(tile_max_ptr + offs, largest, mask=mask_m)
    tl.store(tile_sum_ptr + offs, total, mask=mask_m)
    tl.store(tile_scaled_sum_ptr + offs, scaled_total, mask=mask_m)
    tl.store(tile_score_ptr + offs, score, mask=mask_m)
    tl.store(tile_logit_ptr + offs, logit, mask=mask_m)
    tl.store(tile_token_ptr + offs, token, mask=mask_m)
