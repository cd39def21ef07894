"""Arrays that came from the device -> what the engine appends and sends."""

from collections.abc import Sequence as ListOf

from zeroshot.engine.sampler import Array, SampledToken, token_logprob, token_logprobs
from zeroshot.engine.sequence import Sequence
from zeroshot.types import TokenLogprob


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
            sampled.append(SampledToken(drawn[row], token_logprob(drawn[row], arrays[1][row], arrays[2][row], num_top)))
    return sampled


def scored(sequence: Sequence, arrays: list[Array]) -> list[TokenLogprob | None]:
    """arrays: token ids [num_tokens], log-probabilities and ids, [num_tokens, 1 + num_top] each. None: not finite."""
    num_top = sequence.sampling_params.prompt_logprobs or 0
    return token_logprobs(arrays[0].tolist(), arrays[1], arrays[2], num_top)
