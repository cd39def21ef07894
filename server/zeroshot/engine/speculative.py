"""Speculative decoding: guess a stream's next tokens, run them all in one step, keep what holds.

Checking takes no new rule, since this sampler is a function of the logits and of (seed, choice, position, token id): it
draws at each guessed position what it would have drawn anyway, and the guess holds while it was that very token. So the
tokens are those of decoding one by one, greedy or not, and a wrong guess costs time only.

The guess comes from the text itself (below) or from a smaller model (`draft.py`). `scheduler.py` asks for it, a runner
runs it in the same step as the newest token, and `sampler.py` says how much of it holds.
"""

from collections.abc import Callable
from dataclasses import dataclass

from zeroshot.engine.sequence import Sequence
from zeroshot.settings import EngineSettings

Guess = Callable[[Sequence, int], tuple[int, ...]]
"""(a sequence, n) -> at most n tokens that may come next in it, often none. Never raises."""

LOOKUP_ROWS = 8
"""Of a step: newest tokens, and guesses from the text. A CPU multiplies as many with one reading of its weights, which
takes little longer than one row; on a GPU the fused kernels take no more."""


@dataclass(frozen=True, slots=True)
class Guessing:
    guess: Guess
    max_rows: int
    """Of a step: the newest tokens of all streams, and what is guessed to follow them."""
    max_seqs: int
    """Streams: with more at once the weights are read for all of them anyway, and guesses take their time."""


def most_guessed(settings: EngineSettings) -> int:
    """How many tokens a step may carry beside a sequence's newest one, where that has to be known beforehand."""
    if settings.speculative_model is not None:
        return settings.speculative_tokens
    return LOOKUP_ROWS - 1 if settings.speculative_ngram else 0


def max_decode_rows(settings: EngineSettings) -> int:
    """Rows of the largest decode step: one for each sequence, or one sequence's newest token and every guess."""
    return max(settings.max_num_seqs, 1 + most_guessed(settings))


def num_guessable(sequence: Sequence, most: int) -> int:
    """How many tokens it is worth guessing: one less than the sequence may still get, none under a grammar."""
    if sequence.guide is not None or sequence.needs_host:
        return 0
    return max(0, min(most, sequence.max_num_tokens - sequence.num_tokens - 1))


def look_up(sequence: Sequence, most: int, *, ngram: int) -> tuple[int, ...]:
    """What followed the last time that the newest tokens stood together (Saxena 2023, "Prompt lookup decoding").

    As many tokens as the phrase that stood there is long, if it has `ngram` or more: text that has repeated itself for
    long will go on so, and other text is held up by few wrong guesses.
    """
    count = num_guessable(sequence, most)
    if count == 0:
        return ()
    text = sequence.token_ids[::-1]  # the newest first
    try:
        distance = text.index(text[0], 1)
        while text[distance : distance + ngram] != text[:ngram]:
            distance = text.index(text[0], distance + 1)
    except ValueError:  # they stand together for the first time
        return ()
    longest = min(count, len(text) - distance)
    size = next((i for i in range(ngram, longest) if text[i] != text[distance + i]), max(ngram, longest))
    return tuple(text[distance - 1 - i % distance] for i in range(min(size, count)))
