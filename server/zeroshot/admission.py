"""The bound on what the server holds, running and waiting, and how long a request that is refused should stay away."""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from zeroshot.errors import InvalidRequest, Overloaded
from zeroshot.types import EngineStats, GenerateRequest

_MAX_RETRY_AFTER_S = 120
_RATE_WINDOW_S = 10.0


class Admission:
    """Counts sequences and tokens: a request weighs its prompt and all it may generate, once for each choice."""

    def __init__(self, *, max_seqs: int, max_tokens: int) -> None:
        self.max_seqs = max_seqs
        self.max_tokens = max_tokens
        self.num_seqs = 0
        self.num_tokens = 0
        self.rate = ServiceRate()

    def check(self, requests: Iterable[GenerateRequest]) -> None:
        """Raises Overloaded if these don't fit now, InvalidRequest if they never will."""
        requests = list(requests)
        seqs, tokens = sum(map(num_seqs, requests)), sum(map(weight, requests))
        if seqs > self.max_seqs or tokens > self.max_tokens:
            raise InvalidRequest(
                f"This request is {seqs} sequences of {tokens} tokens in all; the server holds at most "
                f"{self.max_seqs} sequences and {self.max_tokens} tokens. Send it in parts."
            )
        if self.num_seqs + seqs > self.max_seqs or self.num_tokens + tokens > self.max_tokens:
            raise Overloaded(
                f"The server holds {self.num_seqs} of at most {self.max_seqs} sequences and {self.num_tokens} of at "
                f"most {self.max_tokens} tokens.",
                retry_after_s=self.retry_after_s(),
            )

    @contextmanager
    def hold(self, request: GenerateRequest) -> Iterator[None]:
        """The request is in the server. Raises what `check` does."""
        self.check([request])
        self.num_seqs += num_seqs(request)
        self.num_tokens += weight(request)
        try:
            yield
        finally:
            self.num_seqs -= num_seqs(request)
            self.num_tokens -= weight(request)

    def retry_after_s(self) -> int:
        """How long half of what is held takes at the rate measured: whole seconds, from 1 to 120."""
        per_second = self.rate.tokens_per_second
        if not per_second:
            return 1
        return max(1, min(_MAX_RETRY_AFTER_S, math.ceil(self.num_tokens / 2 / per_second)))


def num_seqs(request: GenerateRequest) -> int:
    """Sequences that run for it: its choices, or all beams of its search."""
    beams = request.sampling_params.beams
    return request.n if beams is None else beams.num_beams


def weight(request: GenerateRequest) -> int:
    """Tokens the engine may have to run for it."""
    return num_seqs(request) * (len(request.prompt_token_ids) + request.sampling_params.max_tokens)


class ServiceRate:
    """Tokens a second, over the last seconds in which the engine was busy: an idle hour doesn't make it look slow."""

    def __init__(self) -> None:
        self._spans: deque[tuple[float, int]] = deque()  # (seconds busy, tokens done in them)
        self._last: tuple[float, int] | None = None

    @property
    def tokens_per_second(self) -> float:
        seconds = math.fsum(seconds for seconds, _ in self._spans)
        return sum(tokens for _, tokens in self._spans) / seconds if seconds else 0.0

    def observe(self, stats: EngineStats, now: float) -> None:
        """`stats` was received at `now`, `time.monotonic()`. What was found in the cache counts as done."""
        done = stats.prompt_tokens_total + stats.generation_tokens_total
        last, self._last = self._last, (now, done)
        if last is None or done <= last[1]:  # the first one, an idle engine, or a new one
            return
        self._spans.append((now - last[0], done - last[1]))
        while len(self._spans) > 1 and sum(seconds for seconds, _ in self._spans) > _RATE_WINDOW_S:
            self._spans.popleft()
