"""Speculative decoding: guess a single stream's next tokens, run them all in one step, keep what holds.

Checking takes no new rule, since this sampler is a function of the logits and of (seed, choice, position, token id): it
draws at each guessed position what it would have drawn anyway, and the guess holds while it was that very token. So the
tokens are those of decoding one by one, greedy or not, and a wrong guess costs time only.

The guess comes from the text itself (below) or from a smaller model (`draft.py`). `scheduler.py` asks for it, a runner
runs it in the same step as the newest token, and `sampler.py` says how much of it holds.
"""

from collections.abc import Callable

from zeroshot.engine.sequence import Sequence
from zeroshot.settings import EngineSettings

Guess = Callable[[Sequence], tuple[int, ...]]
"""The tokens that may come next in a sequence, often none. Never raises."""

MAX_GUESSED = 6
"""By prompt lookup: a step then reads its weights once for seven rows."""

_MIN_NGRAM = 2  # after a single token nearly anything may follow


def most_guessed(settings: EngineSettings) -> int:
    """How many tokens a step may carry beside a sequence's newest one."""
    if settings.speculative_model is not None:
        return settings.speculative_tokens
    return MAX_GUESSED if settings.speculative_ngram else 0


def max_decode_rows(settings: EngineSettings) -> int:
    """Rows of the largest decode step: one for each sequence, or one sequence's newest token and every guess."""
    return max(settings.max_num_seqs, 1 + most_guessed(settings))


def num_guessable(sequence: Sequence, most: int) -> int:
    """How many tokens it is worth guessing: one less than the sequence may still get, none under a grammar."""
    if sequence.guide is not None or sequence.beams is not None:
        return 0
    return max(0, min(most, sequence.max_num_tokens - sequence.num_tokens - 1))


def look_up(sequence: Sequence, ngram: int) -> tuple[int, ...]:
    """What followed the last time that the newest few tokens stood together (Saxena 2023, "Prompt lookup decoding").

    ngram: how many of the newest tokens must have stood together before; if they have not, fewer are tried, down to 2.
    """
    count = num_guessable(sequence, MAX_GUESSED)
    if count == 0:
        return ()
    tokens = sequence.token_ids
    for size in range(ngram, min(ngram, _MIN_NGRAM) - 1, -1):
        newest = tokens[-size:]
        for end in range(len(tokens) - 1, size - 1, -1):
            if tokens[end - 1] == newest[-1] and tokens[end - size : end] == newest:
                period = len(tokens) - end
                return tuple(tokens[end + i % period] for i in range(count))
    return ()
