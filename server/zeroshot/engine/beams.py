"""Beam search: which continuations of a prompt go on, which have finished, and when there is nothing left to find.

Hugging Face's rules (`generate(num_beams=...)`, transformers 5), so that the same tokens come out. Plain Python, knows
no tensors; `engine.py` runs the beams as sequences of one request and tells this what each may go on with.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import islice

from zeroshot.types import BeamParams

Candidate = tuple[int, float]
"""A token id and its log-probability, penalties and bias included."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished text. `token_ids`: what was generated, a stop token at its end included."""

    score: float
    token_ids: list[int]
    stop_token_id: int | None


@dataclass(frozen=True, slots=True)
class Continuation:
    """`beam` goes on with `token_id`."""

    beam: int
    token_id: int
    logprob: float
    """Of all that was generated."""


class BeamSearch:
    """`candidates`: what each beam may go on with, by its number; `advance` once every beam has brought its own."""

    def __init__(
        self, params: BeamParams, *, num_returned: int, max_tokens: int, stop_token_ids: frozenset[int]
    ) -> None:
        self.num_beams = params.num_beams
        self.num_returned = num_returned
        self.num_candidates = max(2, 1 + len(stop_token_ids)) * params.num_beams
        """Of each beam, and of all together: enough for `num_beams` that go on, even if all the others end."""
        self.candidates: dict[int, list[Candidate]] = {}
        """The best first."""
        self.finished: list[Hypothesis] = []
        """The best first."""
        self.is_over = False
        self._length_penalty = params.length_penalty
        self._early_stopping = params.early_stopping
        self._max_tokens = max_tokens
        self._stop_token_ids = stop_token_ids
        self._logprobs = [0.0]  # of each beam; the prompt is the first and only one at the beginning

    @property
    def is_ready(self) -> bool:
        """True when every beam has brought its candidates."""
        return len(self.candidates) == len(self._logprobs)

    def advance(self, generated: list[list[int]]) -> list[Continuation]:
        """The beams of the next step, the best first. `generated`: the tokens of each beam until now."""
        best = self._best_continuations()
        length = len(generated[0]) + 1
        is_last = length == self._max_tokens
        for continuation in best[: self.num_beams]:
            if is_last or continuation.token_id in self._stop_token_ids:
                self._finish(continuation, generated[continuation.beam])
        going_on = [c for c in best if c.token_id not in self._stop_token_ids][: self.num_beams]
        self._logprobs = [continuation.logprob for continuation in going_on]
        self.candidates = {}
        self.is_over = is_last or self._is_good_enough(length)
        return going_on

    def _best_continuations(self) -> list[Continuation]:
        """Merged as far as they are wanted: 64 beams and 16 stop tokens make 70,000 of which 1,088 are."""
        beams = map(self._continuations, sorted(self.candidates))
        return list(islice(merge(*beams, key=lambda continuation: -continuation.logprob), self.num_candidates))

    def _continuations(self, beam: int) -> Iterator[Continuation]:
        for token_id, logprob in self.candidates[beam]:
            yield Continuation(beam, token_id, self._logprobs[beam] + logprob)

    def _finish(self, continuation: Continuation, generated: list[int]) -> None:
        token_id = continuation.token_id
        token_ids = [*generated, token_id]
        score = continuation.logprob / len(token_ids) ** self._length_penalty
        stop_token_id = token_id if token_id in self._stop_token_ids else None
        self.finished.append(Hypothesis(score, token_ids, stop_token_id))
        self.finished.sort(key=lambda hypothesis: -hypothesis.score)
        del self.finished[self.num_beams :]

    def _is_good_enough(self, length: int) -> bool:
        """True if `num_beams` texts have finished, and what still runs is not expected to be better."""
        if len(self.finished) < self.num_beams:
            return False
        if self._early_stopping is True:
            return True
        is_longest_best = self._early_stopping == "never" and self._length_penalty > 0
        best_length = self._max_tokens if is_longest_best else length
        return bool(self._logprobs[0] / best_length**self._length_penalty <= self.finished[-1].score)
