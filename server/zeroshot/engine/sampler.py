"""Logits -> the next token of each sequence, and log-probabilities where they were asked for."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from zeroshot.engine.sequence import Sequence
from zeroshot.errors import InvalidRequest
from zeroshot.model.ops import SamplingKernels
from zeroshot.types import SamplingParams, TokenLogprob
from zeroshot_kernels.sampling.reference import Adjustment, adjust_reference, sample_reference

if TYPE_CHECKING:
    from zeroshot.engine.guide import Guide

Array = np.ndarray[Any, Any]

MIN_LOGPROB = -9999.0
"""What -inf is sent as: JSON has no infinity."""


@dataclass(frozen=True, slots=True)
class SampledToken:
    """`token_id` is None if the row had NaN or inf in it: the request ends, no token is made up."""

    token_id: int | None
    logprob: TokenLogprob | None = None
    candidates: list[tuple[int, float]] | None = None
    """For a beam search: the best tokens with their log-probabilities, penalties and bias included."""
    refusal: InvalidRequest | None = None
    """Why no token could be drawn: the grammar has become too large to follow."""


def sample(
    logits: Tensor, sequences: list[Sequence], eos_token_id: int, kernels: SamplingKernels | None = None
) -> list[SampledToken]:
    """logits: [num_seqs, vocab_size] float32, raw. One SampledToken for each sequence, in order.

    kernels: what samples all of them at once. None: each is sampled for itself, by PyTorch.
    """
    if kernels is None:
        return _sample_each(logits, sequences, eos_token_id)
    ways = [_way_by_kernels(sequence) for sequence in sequences]
    sampled: dict[int, SampledToken] = {}
    for way in set(ways):
        rows = [i for i, other in enumerate(ways) if other is way]
        chosen = logits if len(rows) == len(logits) else logits[rows]
        sampled |= zip(rows, way(kernels, chosen, [sequences[i] for i in rows], eos_token_id), strict=True)
    return [sampled[i] for i in range(len(sequences))]


def _way_by_kernels(sequence: Sequence) -> Callable[..., list[SampledToken]]:
    """By what the sequence asks for alone, so that it gets the same bits in any batch."""
    if sequence.beams is None:
        return _sample_together
    return _search_each if _changes_logits(sequence) else _search_together


def _sample_each(logits: Tensor, sequences: list[Sequence], eos_token_id: int) -> list[SampledToken]:
    are_finite = torch.isfinite(logits.sum(-1))
    if all(map(is_plain_greedy, sequences)):
        return greedy_tokens(logits.argmax(-1), are_finite)
    rows = zip(logits, sequences, are_finite.tolist(), strict=True)
    return [_sample_row(row, s, eos_token_id) if is_finite else SampledToken(None) for row, s, is_finite in rows]


def _sample_together(
    kernels: SamplingKernels, logits: Tensor, sequences: list[Sequence], eos_token_id: int
) -> list[SampledToken]:
    token_ids = _draw(kernels, logits, sequences, eos_token_id)
    refusals = _draw_again(kernels, logits, sequences, eos_token_id, token_ids)
    sampled = [SampledToken(token_id if token_id >= 0 else None) for token_id in token_ids.tolist()]
    for i, refusal in refusals.items():
        sampled[i] = SampledToken(None, refusal=refusal)
    wanted = {
        i: number
        for i, (sequence, token) in enumerate(zip(sequences, sampled, strict=True))
        if (number := sequence.sampling_params.logprobs) is not None and token.token_id is not None
    }
    if wanted:
        rows = list(wanted)
        scored = logits if len(rows) == len(logits) else logits[rows]
        logprobs, ids = (found.numpy() for found in kernels.logprobs(scored, token_ids[rows], max(wanted.values())))
        for place, (i, number) in enumerate(wanted.items()):
            token_id = int(token_ids[i])
            sampled[i] = SampledToken(token_id, token_logprob(token_id, logprobs[place], ids[place], number))
    return sampled


def _search_each(_: SamplingKernels, logits: Tensor, beams: list[Sequence], eos_token_id: int) -> list[SampledToken]:
    """Beams whose log-probabilities are changed, which the kernels can't."""
    return _sample_each(logits, beams, eos_token_id)


def _search_together(kernels: SamplingKernels, logits: Tensor, beams: list[Sequence], _: int) -> list[SampledToken]:
    counts = [_num_candidates(beam, logits) for beam in beams]
    any_target = torch.zeros(len(beams), dtype=torch.int64)
    logprobs, ids = kernels.logprobs(logits, any_target, max(counts))
    rows = zip(ids[:, 1:].tolist(), logprobs[:, 1:].tolist(), counts, strict=True)
    return [_candidates(token_ids[:count], values[:count]) for token_ids, values, count in rows]


def _draw(kernels: SamplingKernels, logits: Tensor, sequences: list[Sequence], eos_token_id: int) -> Tensor:
    """[num_seqs] int64, -1 for a row that is not finite."""
    adjustments = [_adjustment(s, eos_token_id) if _has_adjustment(s) else None for s in sequences]
    params = [sequence.sampling_params for sequence in sequences]
    temperatures = torch.tensor([p.temperature for p in params], dtype=torch.float32)
    keys = torch.tensor([[p.seed, s.choice_index, s.num_tokens] for p, s in zip(params, sequences, strict=True)])
    typical_ps = None
    if any(p.is_typical for p in params):
        typical_ps = torch.tensor([p.typical_p for p in params], dtype=torch.float32)
    token_ids, are_finite = kernels.draw(
        logits, adjustments, temperatures, *_filters(params), *keys.t().contiguous(), typical_ps=typical_ps
    )
    return token_ids.masked_fill_(~are_finite, -1)


def draws_before_mask(sequence: Sequence, guide: "Guide") -> bool:
    """Whether to draw its token from all of them, and to compute the grammar's mask only if that one may not come.

    It is the same token: what is largest of all, noise included, is largest among those that may come. But not with
    filters, which depend on what they leave. And where few tokens may come, the first draw would be for nothing.
    """
    return guide.is_open and not sequence.needs_host and _filters([sequence.sampling_params])[0] is None


def _draw_again(
    kernels: SamplingKernels, logits: Tensor, sequences: list[Sequence], eos_token_id: int, token_ids: Tensor
) -> dict[int, InvalidRequest]:
    """In place of tokens that were drawn before a mask and may not come. Returns whose grammar can't be followed."""
    again: list[int] = []
    refusals: dict[int, InvalidRequest] = {}
    for i, (sequence, token_id) in enumerate(zip(sequences, token_ids.tolist(), strict=True)):
        guide = sequence.guide
        if guide is None or guide.mask is not None or token_id < 0 or guide.allows(token_id):
            continue
        try:
            guide.compute_mask()
            again.append(i)
        except InvalidRequest as error:
            refusals[i] = error
    if again:
        token_ids[again] = _draw(kernels, logits[again], [sequences[i] for i in again], eos_token_id)
    return refusals


def _filters(params: list[SamplingParams]) -> tuple[Tensor, Tensor, Tensor] | tuple[None, None, None]:
    """top_ks, top_ps, min_ps."""
    if not any(p.top_k > 0 or p.top_p < 1.0 or p.min_p > 0.0 for p in params):
        return None, None, None
    top_ks = torch.tensor([p.top_k for p in params])
    top_ps, min_ps = torch.tensor([[p.top_p for p in params], [p.min_p for p in params]], dtype=torch.float32)
    return top_ks, top_ps, min_ps


def greedy_tokens(token_ids: Tensor, are_finite: Tensor) -> list[SampledToken]:
    """token_ids: [num_seqs], of the largest logits; are_finite: [num_seqs] bool, whether all logits are."""
    chosen = zip(token_ids.tolist(), are_finite.tolist(), strict=True)
    return [SampledToken(token_id if is_finite else None) for token_id, is_finite in chosen]


def up_to_first_wrong(drawn: list[SampledToken], guessed: tuple[int, ...]) -> list[SampledToken]:
    """The tokens drawn after nothing but right guesses. drawn: after the newest token and after each of `guessed`."""
    wrong = (i for i, (token, guess) in enumerate(zip(drawn, guessed, strict=False)) if token.token_id != guess)
    return drawn[: next(wrong, len(guessed)) + 1]


def drawn_of(
    logits: Tensor,
    sequence: Sequence,
    guessed: tuple[int, ...],
    eos_token_id: int,
    kernels: SamplingKernels | None = None,
) -> list[SampledToken]:
    """One token, and another after each guess that was right. logits: [1 + len(guessed), vocab_size]."""
    num_tokens, drawn = sequence.num_tokens, []
    try:
        for row in range(len(logits)):
            (token,) = sample(logits[row : row + 1], [sequence], eos_token_id, kernels)
            drawn.append(token)
            if row == len(guessed) or token.token_id != guessed[row]:
                break
            sequence.token_ids.append(guessed[row])  # penalties and positions count it
    finally:
        del sequence.token_ids[num_tokens:]
    return drawn


def score_prompt(
    logits: Tensor, target_token_ids: list[int], num_top: int, kernels: SamplingKernels | None = None
) -> list[TokenLogprob | None]:
    """logits: [num_tokens, vocab_size] float32. None for a row with NaN or inf in it."""
    if kernels:
        logprobs, ids = kernels.logprobs(logits, torch.tensor(target_token_ids), num_top)
        return token_logprobs(target_token_ids, logprobs.numpy(), ids.numpy(), num_top)
    is_finite = torch.isfinite(logits.sum(-1)).tolist()
    return [
        _logprob(row, token_id, num_top) if ok else None
        for row, token_id, ok in zip(logits, target_token_ids, is_finite, strict=True)
    ]


def is_plain_greedy(sequence: Sequence) -> bool:
    """Whether its next token is the one with the largest logit, and nothing else about the logits is asked for."""
    params = sequence.sampling_params
    return (
        params.temperature == 0.0 and params.logprobs is None and params.beams is None and not _changes_logits(sequence)
    )


def _changes_logits(sequence: Sequence) -> bool:
    return sequence.guide is not None or _has_adjustment(sequence)


def _has_adjustment(sequence: Sequence) -> bool:
    """Whether anything is to be done to its logits now."""
    params, guide = sequence.sampling_params, sequence.guide
    return bool(
        params.logit_bias
        or params.has_penalties
        or sequence.num_output_tokens < params.min_tokens
        or (guide is not None and guide.mask is not None)
    )


def _sample_row(logits: Tensor, sequence: Sequence, eos_token_id: int) -> SampledToken:
    params = sequence.sampling_params
    if sequence.beams is not None:
        return _beam_candidates(logits, sequence, eos_token_id)
    token_id = _drawn_alone(logits, sequence, eos_token_id)
    return SampledToken(token_id, None if params.logprobs is None else _logprob(logits, token_id, params.logprobs))


def _drawn_alone(logits: Tensor, sequence: Sequence, eos_token_id: int) -> int:
    params = sequence.sampling_params
    if _changes_logits(sequence):
        logits = logits.clone()
        adjust_reference(logits, _adjustment(sequence, eos_token_id))
    return sample_reference(
        logits,
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        typical_p=params.typical_p,
        seed=params.seed,
        choice=sequence.choice_index,
        position=sequence.num_tokens,
    )


def _beam_candidates(logits: Tensor, beam: Sequence, eos_token_id: int) -> SampledToken:
    """Hugging Face applies penalties and bias to log-probabilities here, not to logits."""
    logprobs = logits.log_softmax(-1)
    if _changes_logits(beam):
        adjust_reference(logprobs, _adjustment(beam, eos_token_id))
    best = logprobs.topk(_num_candidates(beam, logits))
    return _candidates(best.indices.tolist(), best.values.tolist())


def _num_candidates(beam: Sequence, logits: Tensor) -> int:
    return 0 if beam.beams is None else min(beam.beams.num_candidates, logits.shape[-1])


def _candidates(token_ids: list[int], logprobs: list[float]) -> SampledToken:
    if math.isnan(logprobs[0]):
        return SampledToken(None)
    return SampledToken(token_ids[0], candidates=list(zip(token_ids, logprobs, strict=True)))


def _adjustment(sequence: Sequence, eos_token_id: int) -> Adjustment:
    """Bias, penalties, the tokens forbidden before `min_tokens` and the grammar's mask."""
    params = sequence.sampling_params
    is_too_short = sequence.num_output_tokens < params.min_tokens
    return Adjustment(
        logit_bias=params.logit_bias,
        token_ids=sequence.token_ids if params.has_penalties else (),
        num_prompt_tokens=sequence.num_prompt_tokens,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        forbidden_ids=(eos_token_id, *params.stop_token_ids) if is_too_short else (),
        is_allowed=None if sequence.guide is None else sequence.guide.mask,
    )


def _logprob(logits: Tensor, token_id: int, num_top: int) -> TokenLogprob:
    """Raw log-softmax, in the order and precision Hugging Face computes it."""
    logprobs = logits.log_softmax(-1)
    chosen = float(logprobs[token_id])
    top = logprobs.topk(num_top)
    return TokenLogprob(
        token_id=token_id,
        logprob=max(chosen, MIN_LOGPROB),
        rank=int((logprobs > chosen).sum()) + 1,
        top=[(i, max(value, MIN_LOGPROB)) for i, value in zip(top.indices.tolist(), top.values.tolist(), strict=True)],
    )


def token_logprobs(token_ids: list[int], logprobs: Array, ids: Array, num_top: int) -> list[TokenLogprob | None]:
    """logprobs, ids: [num_tokens, 1 + num_top or more], see `token_logprob`. None for a row of NaN."""
    return [
        None if np.isnan(values[0]) else token_logprob(token_id, values, of, num_top)
        for token_id, values, of in zip(token_ids, logprobs, ids, strict=True)
    ]


def token_logprob(token_id: int, logprobs: Array, ids: Array, num_top: int) -> TokenLogprob:
    """logprobs: [1 + num_top or more], the token's own first; ids: its rank first, then whose the others are."""
    chosen, *best = np.maximum(logprobs[: 1 + num_top], MIN_LOGPROB).tolist()
    rank, *top_ids = ids[: 1 + num_top].tolist()
    return TokenLogprob(token_id=token_id, logprob=chosen, rank=rank, top=list(zip(top_ids, best, strict=True)))
