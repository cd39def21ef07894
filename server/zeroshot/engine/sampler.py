"""Logits -> the next token of each sequence, and log-probabilities where they were asked for."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroshot.engine.sequence import Sequence
from zeroshot.types import TokenLogprob
from zeroshot_kernels.sampling.reference import apply_penalties, sample_reference

Draw = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(logits, temperatures, seeds, choices, positions) -> token ids: `Backend.draw`."""

MIN_LOGPROB = -9999.0
"""What -inf is sent as: JSON has no infinity."""


@dataclass(frozen=True, slots=True)
class SampledToken:
    """`token_id` is None if the row had NaN or inf in it: the request ends, no token is made up."""

    token_id: int | None
    logprob: TokenLogprob | None = None
    candidates: list[tuple[int, float]] | None = None
    """For a beam search: the best tokens with their log-probabilities, penalties and bias included."""


def sample(
    logits: Tensor, sequences: list[Sequence], eos_token_id: int, draw: Draw | None = None
) -> list[SampledToken]:
    """logits: [num_seqs, vocab_size] float32, raw. One SampledToken for each sequence, in order.

    draw: by which those are drawn together that need nothing but a temperature. None: each is drawn alone.
    """
    are_finite = torch.isfinite(logits.sum(-1))
    if all(map(is_plain_greedy, sequences)):
        return greedy_tokens(logits.argmax(-1), are_finite)
    finite = are_finite.tolist()
    drawn: dict[int, int] = {}
    if draw is not None:
        together = [i for i, sequence in enumerate(sequences) if finite[i] and _is_plain_draw(sequence)]
        drawn = _draw_together(draw, logits, sequences, together)
    return [
        _sample_row(logits[i], sequence, eos_token_id, drawn.get(i)) if finite[i] else SampledToken(None)
        for i, sequence in enumerate(sequences)
    ]


def _is_plain_draw(sequence: Sequence) -> bool:
    params = sequence.sampling_params
    has_filters = params.top_k > 0 or params.top_p < 1.0 or params.min_p > 0.0
    is_drawn = params.temperature >= torch.finfo(torch.float32).tiny and sequence.beams is None
    return is_drawn and not has_filters and not _changes_logits(sequence)


def _draw_together(draw: Draw, logits: Tensor, sequences: list[Sequence], rows: list[int]) -> dict[int, int]:
    """Row -> its token id."""
    if not rows:
        return {}
    chosen = [sequences[row] for row in rows]
    keys = torch.tensor([[s.sampling_params.seed, s.choice_index, s.num_tokens] for s in chosen]).t().contiguous()
    temperatures = torch.tensor([s.sampling_params.temperature for s in chosen])
    if len(rows) < len(logits):
        logits = logits[rows]
    return dict(zip(rows, draw(logits, temperatures, *keys).tolist(), strict=True))


def greedy_tokens(token_ids: Tensor, are_finite: Tensor) -> list[SampledToken]:
    """token_ids: [num_seqs], of the largest logits; are_finite: [num_seqs] bool, whether all logits are."""
    chosen = zip(token_ids.tolist(), are_finite.tolist(), strict=True)
    return [SampledToken(token_id if is_finite else None) for token_id, is_finite in chosen]


def up_to_first_wrong(drawn: list[SampledToken], guessed: tuple[int, ...]) -> list[SampledToken]:
    """The tokens drawn after nothing but right guesses. drawn: after the newest token and after each of `guessed`."""
    wrong = (i for i, (token, guess) in enumerate(zip(drawn, guessed, strict=False)) if token.token_id != guess)
    return drawn[: next(wrong, len(guessed)) + 1]


def drawn_of(
    logits: Tensor, sequence: Sequence, guessed: tuple[int, ...], eos_token_id: int, draw: Draw | None = None
) -> list[SampledToken]:
    """One token, and another after each guess that was right. logits: [1 + len(guessed), vocab_size]."""
    num_tokens, drawn = sequence.num_tokens, []
    try:
        for row in range(len(logits)):
            (token,) = sample(logits[row : row + 1], [sequence], eos_token_id, draw)
            drawn.append(token)
            if row == len(guessed) or token.token_id != guessed[row]:
                break
            sequence.token_ids.append(guessed[row])  # penalties and positions count it
    finally:
        del sequence.token_ids[num_tokens:]
    return drawn


def score_prompt(logits: Tensor, target_token_ids: list[int], num_top: int) -> list[TokenLogprob | None]:
    """logits: [num_tokens, vocab_size] float32. None for a row with NaN or inf in it."""
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
    params = sequence.sampling_params
    return bool(
        params.logit_bias
        or params.repetition_penalty != 1.0
        or params.presence_penalty
        or params.frequency_penalty
        or sequence.num_output_tokens < params.min_tokens
        or sequence.guide is not None
    )


def _sample_row(logits: Tensor, sequence: Sequence, eos_token_id: int, drawn: int | None) -> SampledToken:
    """drawn: its token, if that is known already."""
    params = sequence.sampling_params
    if sequence.beams is not None:
        return _beam_candidates(logits, sequence, sequence.beams.num_candidates, eos_token_id)
    token_id = _drawn_alone(logits, sequence, eos_token_id) if drawn is None else drawn
    return SampledToken(token_id, None if params.logprobs is None else _logprob(logits, token_id, params.logprobs))


def _drawn_alone(logits: Tensor, sequence: Sequence, eos_token_id: int) -> int:
    params = sequence.sampling_params
    return sample_reference(
        _adjusted(logits, sequence, eos_token_id) if _changes_logits(sequence) else logits,
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        seed=params.seed,
        choice=sequence.choice_index,
        position=sequence.num_tokens,
    )


def _beam_candidates(logits: Tensor, sequence: Sequence, count: int, eos_token_id: int) -> SampledToken:
    """Hugging Face applies penalties and bias to log-probabilities here, not to logits."""
    logprobs = logits.log_softmax(-1)
    if _changes_logits(sequence):
        logprobs = _adjusted(logprobs, sequence, eos_token_id)
    best = logprobs.topk(min(count, len(logprobs)))
    candidates = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return SampledToken(candidates[0][0], candidates=candidates)


def _adjusted(logits: Tensor, sequence: Sequence, eos_token_id: int) -> Tensor:
    """A copy with bias, penalties, the tokens forbidden before `min_tokens` and the grammar's mask applied."""
    params = sequence.sampling_params
    adjusted = logits.clone()
    if params.logit_bias:
        ids = torch.tensor(list(params.logit_bias), device=logits.device)
        adjusted[ids] += torch.tensor(list(params.logit_bias.values()), device=logits.device)
    apply_penalties(
        adjusted,
        sequence.token_ids[: sequence.num_prompt_tokens],
        sequence.token_ids[sequence.num_prompt_tokens :],
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
    )
    adjusted.clamp_(max=torch.finfo(adjusted.dtype).max)  # a logit divided by a tiny penalty overflows
    if sequence.num_output_tokens < params.min_tokens:
        # A small vocabulary may lack the end of text that config.json names.
        ends = [i for i in (eos_token_id, *params.stop_token_ids) if 0 <= i < len(adjusted)]
        adjusted[ends] = -torch.inf
    if sequence.guide is not None:
        adjusted[~torch.from_numpy(sequence.guide.mask).to(adjusted.device)] = -torch.inf
    return adjusted


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
