# ruff: noqa: N803
"""Sampling: from rows of logits to a token id each, with temperature, top-k, top-p and min-p, exactly and unsorted.

    token = argmax over the kept tokens v of  s[v] + g[v],    s = (z - max(z)) / temperature,  g Gumbel noise

which is an exact sample of softmax(s) over the kept tokens (Gumbel 1954; Maddison et al. 2014). The noise is that of
`uniform_noise` in the reference, bit for bit: Philox-4x64-10 (Salmon et al. 2011) of (seed, choice, position, token).

The kept tokens are always the first few of the order "more likely first, ties by token id". So the filters need no
sorting and no threshold, only a test of one token: take the best of all tokens; if fewer than k are more likely and
those before it weigh less than p, it is the best of the kept ones too. If not, nothing from it on is kept: take the
best of those before it, and test again. (FlashInfer's rejection sampling, Ye et al. 2025, without new random numbers: a
request's tokens still follow from its seed alone.) The first try usually passes, since it passes with the probability
that the filter keeps; a flat row with k = 1 takes about log(vocab_size) tries.

Two launches. `tile_statistics_kernel`: for each TILE_SIZE tokens the maximum, two sums of exponentials, and the best of
s + g. `choose_kernel`: a program a row merges its tiles and applies the filters.

Only top-k and top-p together need the k-th largest value, since top-p is then a share of what top-k keeps. The k-th
largest of the tiles' maxima bounds it; what is above the bound, a few times k, is gathered and bisected.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_rows
from zeroshot_kernels.sampling.filters_kernel import INFINITY_BITS, first_kept, key_of, top_k_mass
from zeroshot_kernels.sampling.noise_kernel import gumbel_noise

TILE_SIZE = 128
"""Tokens in a tile: 393 tiles for GPT-2's vocabulary, so the bound on the k-th largest works up to k = 393."""

_CANDIDATES = 2048  # the k-th largest is sought among so many in one load; among more, in the whole row
_LAUNCH = {
    "TILES_PER_PROGRAM": 4,  # 512 logits, 8 a thread: on an H200 (by hand) the fastest of eight
    "tile_warps": 2,
    "BLOCK_V": 2048,
    "choose_warps": 16,  # noise for 4 tokens a thread; with 8 it takes 200 registers, and 8 warps are all of an SM's
    "choose_registers": 128,
}

_FLOAT32_TINY = tl.constexpr(1.1754943508222875e-38)


class SamplingWorkspace(NamedTuple):
    """What is known of each tile: [num_rows, num_tiles] each but the last."""

    tile_max: Tensor  # float32: the largest logit, NaN if one is NaN or +inf
    tile_sum: Tensor  # float32: sum of exp(z - tile_max)
    tile_scaled_sum: Tensor  # float32: sum of exp((z - tile_max) / temperature)
    tile_score: Tensor  # float32: the best of (z - tile_max) / temperature + noise
    tile_logit: Tensor  # float32: the logit of that token
    tile_token: Tensor  # int32: its id
    candidates: Tensor  # [num_rows, 2048] float32

    @classmethod
    def allocate(cls, num_rows: int, vocab_size: int, device: torch.device) -> "SamplingWorkspace":
        shape = (num_rows, triton.cdiv(vocab_size, TILE_SIZE))
        # Each by itself: parts of one tensor would begin at other alignments for other numbers of rows, and for each of
        # these there would be a kernel, compiled when a request comes to it.
        floats = (torch.empty(shape, dtype=torch.float32, device=device) for _ in range(5))
        largest, total, scaled_total, score, logit = floats
        token = torch.empty(shape, dtype=torch.int32, device=device)
        candidates = torch.empty((num_rows, _CANDIDATES), dtype=torch.float32, device=device)
        return cls(largest, total, scaled_total, score, logit, token, candidates)


def sampling(
    logits: Tensor,
    temperatures: Tensor,
    top_ks: Tensor | None,
    top_ps: Tensor | None,
    min_ps: Tensor | None,
    seeds: Tensor,
    choices: Tensor,
    positions: Tensor,
    *,
    must_be_finite: bool = False,
    with_logprobs: bool = True,
    out: tuple[Tensor, Tensor, Tensor] | None = None,
    workspace: SamplingWorkspace | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """A token of each row. Returns `out`: token ids int64, their log-probabilities float32, is_valid bool: [num_rows].

    logits: [num_rows, vocab_size] float32, the last axis contiguous (rows at a multiple of 16 elements load fastest),
    bias and penalties applied. temperatures, top_ps, min_ps: [num_rows] float32; top_ks: int32; seeds, choices,
    positions: int64. Temperature 0 takes the best token; top_k 0, top_p 1 and min_p 0 are off, and so are all three
    given as None. The log-probability is that of softmax(logits), before temperature and filters. A row with NaN or
    +inf, or of -inf only, is not valid: its token id is 0 and its log-probability NaN. `must_be_finite`: nor is one
    with any -inf, which otherwise forbids a token. Not `with_logprobs`: they are NaN, and no exponential is taken that
    neither noise nor filters need.
    """
    num_rows, vocab_size = logits.shape
    if logits.dtype != torch.float32:
        raise ValueError(f"logits must be {torch.float32}, are {logits.dtype}")
    check_rows(logits=logits)
    filters, draws = (top_ks, top_ps, min_ps), (seeds, choices, positions)
    has_filters = any(values is not None for values in filters)
    counts = [len(values) for values in (temperatures, *filters, *draws) if values is not None]
    if counts != [num_rows] * (7 if has_filters else 4):
        raise ValueError(f"{num_rows} rows of logits, parameters for {counts}")
    if workspace is None:
        workspace = SamplingWorkspace.allocate(num_rows, vocab_size, logits.device)
    num_tiles = triton.cdiv(vocab_size, TILE_SIZE)
    if len(workspace.tile_max) < num_rows or workspace.tile_max.shape[1] != num_tiles:
        raise ValueError(f"workspace for {tuple(workspace.tile_max.shape)}, needs {(num_rows, num_tiles)}")
    if out is None:
        out = empty_samples(num_rows, logits.device)
    tiles_per_program = min(_LAUNCH["TILES_PER_PROGRAM"], triton.next_power_of_2(num_tiles))
    tile_statistics_kernel[triton.cdiv(num_tiles, tiles_per_program), num_rows](
        logits,
        temperatures,
        seeds,
        choices,
        positions,
        *workspace[:6],
        vocab_size,
        num_tiles,
        logits.stride(0),
        TILE_SIZE=TILE_SIZE,
        TILES_PER_PROGRAM=tiles_per_program,
        MUST_BE_FINITE=must_be_finite,
        FOR_FILTERS=has_filters,
        FOR_LOGPROBS=with_logprobs,
        num_warps=_LAUNCH["tile_warps"],
    )
    choose_kernel[(num_rows,)](
        logits if has_filters else None,
        temperatures,
        *filters,
        *draws,
        *workspace[:6],
        workspace.candidates if has_filters else None,
        *out,
        vocab_size,
        num_tiles,
        logits.stride(0) if has_filters else 0,
        **choose_options(num_tiles, vocab_size if has_filters else 0, with_logprobs=with_logprobs),
    )
    return out


def choose_options(num_tiles: int, vocab_size: int, *, with_logprobs: bool, use_pdl: bool = False) -> dict[str, Any]:
    """What `choose_kernel` is launched with. vocab_size: 0 if there are no filters, and so no logits to filter."""
    options = {
        "HAS_LOGITS": vocab_size > 0,
        "FOR_LOGPROBS": with_logprobs,
        "USE_PDL": use_pdl,
        "BLOCK_TILES": triton.next_power_of_2(num_tiles),
        "BLOCK_V": min(_LAUNCH["BLOCK_V"], triton.next_power_of_2(vocab_size)) if vocab_size else 0,
        "CANDIDATES": _CANDIDATES if vocab_size else 0,
        "num_warps": _LAUNCH["choose_warps"] if vocab_size else 4,
    }
    if vocab_size:
        options["maxnreg"] = _LAUNCH["choose_registers"]
    return options | ({"launch_pdl": True} if use_pdl else {})  # the interpreter knows no such option


def empty_samples(num_rows: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    token_ids = torch.empty(num_rows, dtype=torch.int64, device=device)
    logprobs = torch.empty(num_rows, dtype=torch.float32, device=device)
    return token_ids, logprobs, torch.empty(num_rows, dtype=torch.bool, device=device)


@triton.jit
def tile_statistics_kernel(
    logits_ptr,  # [num_rows, vocab_size]
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
    vocab_size,
    num_tiles,
    stride_logits_row,
    TILE_SIZE: tl.constexpr,
    TILES_PER_PROGRAM: tl.constexpr,
    MUST_BE_FINITE: tl.constexpr,
    FOR_FILTERS: tl.constexpr,
    FOR_LOGPROBS: tl.constexpr,
):
    pid_row = tl.program_id(1).to(tl.int64)
    offs_tile = tl.program_id(0) * TILES_PER_PROGRAM + tl.arange(0, TILES_PER_PROGRAM)
    offs_v = offs_tile[:, None] * TILE_SIZE + tl.arange(0, TILE_SIZE)[None, :]
    logits_row_ptr = logits_ptr + pid_row * stride_logits_row
    logits = tl.load(logits_row_ptr + offs_v, mask=offs_v < vocab_size, other=float("-inf"))
    if MUST_BE_FINITE:
        logits = tl.where((logits == float("-inf")) & (offs_v < vocab_size), float("nan"), logits)
    same = tl.zeros([TILES_PER_PROGRAM], tl.int64)
    largest, total, scaled_total, score, logit, token = tile_statistics(
        logits,
        offs_tile * TILE_SIZE,
        tl.load(temperatures_ptr + pid_row) + same.to(tl.float32),
        tl.load(seeds_ptr + pid_row) + same,
        tl.load(choices_ptr + pid_row) + same,
        tl.load(positions_ptr + pid_row) + same,
        TILE_SIZE,
        FOR_FILTERS,
        FOR_LOGPROBS,
    )
    offs = pid_row * num_tiles + offs_tile
    mask = offs_tile < num_tiles
    tl.store(tile_max_ptr + offs, largest, mask=mask)
    tl.store(tile_sum_ptr + offs, total, mask=mask)
    tl.store(tile_scaled_sum_ptr + offs, scaled_total, mask=mask)
    tl.store(tile_score_ptr + offs, score, mask=mask)
    tl.store(tile_logit_ptr + offs, logit, mask=mask)
    tl.store(tile_token_ptr + offs, token, mask=mask)


@triton.jit
def tile_statistics(
    logits,
    first_tokens,
    temperatures,
    seeds,
    choices,
    positions,
    TILE_SIZE: tl.constexpr,
    FOR_FILTERS: tl.constexpr,
    FOR_LOGPROBS: tl.constexpr,
):
    """logits: [M, TILE_SIZE], -inf past the vocabulary; the others: [M]. Returns SamplingWorkspace's six, [M] each.

    tile_sum and tile_logit are 0 unless log-probabilities need them, tile_scaled_sum means nothing without filters.
    """
    if FOR_LOGPROBS:
        largest = tl.max(logits, axis=1)
    else:
        largest = tl.max(tl.where(logits == logits, logits, float("inf")), axis=1)
    # Of -inf everywhere only -inf is left, not -inf - -inf.
    centred = tl.where(logits == float("-inf"), float("-inf"), logits - largest[:, None])
    total = tl.zeros(largest.shape, tl.float32)
    if FOR_LOGPROBS:
        total = tl.sum(tl.exp(centred), axis=1)
    scores, scaled_total = centred, total
    if tl.max(temperatures, axis=0) >= _FLOAT32_TINY:
        is_greedy = temperatures < _FLOAT32_TINY
        divisors = tl.where(is_greedy, 1.0, temperatures)[:, None]
        scores = tl.div_rn(centred, tl.broadcast_to(divisors, centred.shape))
        if FOR_FILTERS:
            scaled_total = tl.sum(tl.exp(scores), axis=1)
        noise = gumbel_noise(first_tokens, seeds, choices, positions, TILE_SIZE)
        scores = tl.where(is_greedy[:, None], scores, scores + noise)
    scores = tl.where(scores == scores, scores, float("-inf"))  # a tile of NaN has no best; it is flagged below
    score, column = tl.max(scores, axis=1, return_indices=True, return_indices_tie_break_left=True)
    logit = tl.zeros(largest.shape, tl.float32)
    if FOR_LOGPROBS:
        logit = tl.max(tl.where(tl.arange(0, TILE_SIZE)[None, :] == column[:, None], logits, float("-inf")), axis=1)
    # A NaN is in the sum, and so is the inf - inf of a +inf; or both made the largest +inf.
    is_finite = total == total if FOR_LOGPROBS else largest < float("inf")
    return tl.where(is_finite, largest, float("nan")), total, scaled_total, score, logit, first_tokens + column


@triton.jit
def choose_kernel(
    logits_ptr,  # [num_rows, vocab_size], and the four filters' below, are read only if HAS_LOGITS
    temperatures_ptr,  # [num_rows]
    top_ks_ptr,  # [num_rows]
    top_ps_ptr,  # [num_rows]
    min_ps_ptr,  # [num_rows]
    seeds_ptr,  # [num_rows]
    choices_ptr,  # [num_rows]
    positions_ptr,  # [num_rows]
    tile_max_ptr,  # [num_rows, num_tiles], and so are the five below
    tile_sum_ptr,
    tile_scaled_sum_ptr,
    tile_score_ptr,
    tile_logit_ptr,
    tile_token_ptr,
    candidates_ptr,  # [num_rows, CANDIDATES]
    token_ids_ptr,  # [num_rows]
    logprobs_ptr,  # [num_rows]
    is_valid_ptr,  # [num_rows]
    vocab_size,
    num_tiles,
    stride_logits_row,
    HAS_LOGITS: tl.constexpr,
    FOR_LOGPROBS: tl.constexpr,
    USE_PDL: tl.constexpr,
    BLOCK_TILES: tl.constexpr,
    BLOCK_V: tl.constexpr,
    CANDIDATES: tl.constexpr,
):
    if USE_PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    pid_row = tl.program_id(0).to(tl.int64)
    offs_tile = tl.arange(0, BLOCK_TILES)
    mask_tile = offs_tile < num_tiles
    offs = pid_row * num_tiles + offs_tile
    tile_max = tl.load(tile_max_ptr + offs, mask=mask_tile, other=float("-inf"), cache_modifier=".cg")
    tile_score = tl.load(tile_score_ptr + offs, mask=mask_tile, other=float("-inf"), cache_modifier=".cg")
    temperature = tl.load(temperatures_ptr + pid_row)
    is_greedy = temperature < _FLOAT32_TINY
    temperature = tl.where(is_greedy, 1.0, temperature)
    row_max = tl.max(tile_max, axis=0)
    has_nan = tl.max((tile_max != tile_max).to(tl.int32), axis=0) > 0
    if has_nan | (row_max == float("-inf")):
        tl.store(token_ids_ptr + pid_row, 0)
        tl.store(logprobs_ptr + pid_row, float("nan"))
        tl.store(is_valid_ptr + pid_row, False)
        return

    tile_offset = tl.div_rn(tile_max - row_max, tl.zeros([BLOCK_TILES], tl.float32) + temperature)
    tile = tl.argmax(tile_score + tile_offset, axis=0, tie_break_left=True)
    token = tl.load(tile_token_ptr + pid_row * num_tiles + tile, cache_modifier=".cg")
    if HAS_LOGITS:
        top_k = tl.load(top_ks_ptr + pid_row)
        top_k = tl.where((top_k <= 0) | (top_k > vocab_size), vocab_size, top_k)
        top_p = tl.load(top_ps_ptr + pid_row)
        min_p = tl.load(min_ps_ptr + pid_row)
        if (is_greedy == 0) & ((top_k < vocab_size) | (top_p < 1.0) | (min_p > 0.0)):
            logits_row_ptr = logits_ptr + pid_row * stride_logits_row
            tile_scaled_sum = tl.load(tile_scaled_sum_ptr + offs, mask=mask_tile, other=0.0)
            kept_mass = tl.sum(tile_scaled_sum * tl.exp(tile_offset), axis=0)
            largest_key = INFINITY_BITS
            if (top_k < vocab_size) & (top_p < 1.0):
                largest_key, kept_mass = top_k_mass(
                    logits_row_ptr,
                    candidates_ptr + pid_row * CANDIDATES,
                    tl.where(mask_tile, key_of(tile_max, row_max, temperature), INFINITY_BITS + 1),
                    top_k,
                    row_max,
                    temperature,
                    vocab_size,
                    BLOCK_V,
                    CANDIDATES,
                )
            token = first_kept(
                logits_row_ptr,
                token,
                top_k,
                tl.where(top_p < 1.0, top_p * kept_mass, float("inf")),
                # min-p is a bound on the key as well; that of the k-th largest is known only if top-p needed it.
                tl.minimum(largest_key, tl.abs(tl.log(min_p)).to(tl.int32, bitcast=True)),
                row_max,
                temperature,
                tl.load(seeds_ptr + pid_row),
                tl.load(choices_ptr + pid_row),
                tl.load(positions_ptr + pid_row),
                vocab_size,
                BLOCK_V,
            )
    logprob = tl.full([], float("nan"), tl.float32)
    if FOR_LOGPROBS:
        if HAS_LOGITS:
            logit = tl.load(logits_ptr + pid_row * stride_logits_row + token)
        else:
            logit = tl.load(tile_logit_ptr + pid_row * num_tiles + tile, cache_modifier=".cg")
        tile_sum = tl.load(tile_sum_ptr + offs, mask=mask_tile, other=0.0, cache_modifier=".cg")
        logprob = logit - row_max - tl.log(tl.sum(tile_sum * tl.exp(tile_max - row_max), axis=0))
    tl.store(token_ids_ptr + pid_row, token.to(tl.int64))
    tl.store(logprobs_ptr + pid_row, logprob)
    tl.store(is_valid_ptr + pid_row, True)
