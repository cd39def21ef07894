"""Arrays that came from the device -> what the engine appends and sends."""

from collections.abc import Sequence as ListOf
from typing import Any

import numpy as np

from zeroshot.engine.sampler import MIN_LOGPROB, SampledToken
from zeroshot.engine.sequence import Sequence
from zeroshot.types import TokenLogprob

Array = np.ndarray[Any, Any]


def sampled_tokens(arrays: ListOf[Array], sequences: list[Sequence], rows: ListOf[int]) -> list[SampledToken]:
    """arrays: a step's `drawn`, [num_rows], and perhaps `logprobs` and `logprob_ids` of `DecodeState`.

    rows: the row of each sequence.
    """
    drawn = arrays[0].tolist()
    if len(arrays) == 1:
        return [SampledToken(drawn[row] if drawn[row] >= 0 else None) for row in rows]
    sampled = []
    for sequence, row in zip(sequences, rows, strict=True):
        num_top = sequence.sampling_params.logprobs
        if drawn[row] < 0:
            sampled.append(SampledToken(None))
        elif num_top is None:
            sampled.append(SampledToken(drawn[row]))
        else:
            sampled.append(SampledToken(drawn[row], _logprob(drawn[row], arrays[1][row], arrays[2][row], num_top)))
    return sampled


def scored(sequence: Sequence, arrays: list[Array]) -> list[TokenLogprob | None]:
    """arrays: token ids [num_tokens], log-probabilities and ids, [num_tokens, 1 + num_top] each. None: not finite."""
    num_top = sequence.sampling_params.prompt_logprobs or 0
    return [
        None if np.isnan(logprobs[0]) else _logprob(token_id, logprobs, ids, num_top)
        for token_id, logprobs, ids in zip(arrays[0].tolist(), arrays[1], arrays[2], strict=True)
    ]


def _logprob(token_id: int, logprobs: Array, ids: Array, num_top: int) -> TokenLogprob:
    """logprobs: [1 + num_top or more], the token's own first; ids: its rank first, then whose the others are."""
    chosen, *best = np.maximum(logprobs[: 1 + num_top], MIN_LOGPROB).tolist()
    rank, *top_ids = ids[: 1 + num_top].tolist()
    return TokenLogprob(token_id=token_id, logprob=chosen, rank=rank, top=list(zip(top_ids, best, strict=True)))
