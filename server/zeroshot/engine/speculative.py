"""Speculative decoding by prompt lookup: guess the next tokens from the text itself, run them at once, keep what holds.

A guess is what followed the last time that the newest few tokens stood together (Saxena 2023, "Prompt lookup
decoding"). Checking takes no new rule, since this sampler is a function of the logits and of (seed, choice, position,
token id): it draws at each guessed position what it would have drawn anyway, and the guess holds while it was that very
token. So the tokens are those of decoding one by one, greedy or not, and a wrong guess costs time only.

`scheduler.py` guesses, `model_runner.py` runs the guess and `sampler.py` checks it: a step may carry several positions
of a decoding sequence.
"""

from zeroshot.engine.sequence import Sequence

MAX_GUESSED = 6
"""A step then reads its weights once for seven rows."""

_MIN_NGRAM = 2  # after a single token nearly anything may follow


def guess(sequence: Sequence, ngram: int) -> tuple[int, ...]:
    """Tokens that may come next: at most MAX_GUESSED, and one less than the sequence may still get. Often none.

    ngram: how many of the newest tokens have to have stood together before; fewer, down to two, if so many have not.
    """
    count = min(MAX_GUESSED, sequence.max_num_tokens - sequence.num_tokens - 1)
    if count <= 0 or sequence.guide is not None or sequence.beams is not None:
        return ()
    tokens = sequence.token_ids
    for size in range(ngram, min(ngram, _MIN_NGRAM) - 1, -1):
        newest = tokens[-size:]
        for end in range(len(tokens) - 1, size - 1, -1):
            if tokens[end - 1] == newest[-1] and tokens[end - size : end] == newest:
                period = len(tokens) - end
                return tuple(tokens[end + i % period] for i in range(count))
    return ()
