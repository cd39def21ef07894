"""The bound on what the server holds, running and waiting, and how long a request that is refused should stay away."""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from zeroshot.errors import Overloaded, TooMuchAtOnce
from zeroshot.types import EngineStats, GenerateRequest

_MAX_RETRY_AFTER_S = 120
_RATE_WINDOW_S = 10.0


@dataclass(slots=True)
class Load:
    """Sequences and tokens: a request weighs its prompt and all it may generate, once for each choice."""

    num_seqs: int = 0
    num_tokens: int = 0

    @classmethod
    def of(cls, requests: Iterable[GenerateRequest]) -> "Load":
        requests = list(requests)
        return cls(sum(map(num_seqs, requests)), sum(map(weight, requests)))

    def __add__(self, other: "Load") -> "Load":
        return Load(self.num_seqs + other.num_seqs, self.num_tokens + other.num_tokens)

    def __sub__(self, other: "Load") -> "Load":
        return Load(self.num_seqs - other.num_seqs, self.num_tokens - other.num_tokens)

    def fits(self, limit: "Load") -> bool:
        return self.num_seqs <= limit.num_seqs and self.num_tokens <= limit.num_tokens

    def __str__(self) -> str:
        return f"{self.num_seqs} sequences and {self.num_tokens} tokens"


class Admission:
    """Counts what the server holds, in all and for each caller, and refuses what would be too much."""

    def __init__(self, *, max_seqs: int, max_tokens: int) -> None:
        self.limit = self.limit_of_one = Load(max_seqs, max_tokens)
        self.held = Load()
        self._held_by: dict[bytes, Load] = {}
        self.rate = ServiceRate()

    def share_among(self, num_callers: int) -> None:
        """Of several callers, one may hold half at most: else it could shut out all others for minutes."""
        if num_callers > 1:
            self.limit_of_one = Load(-(-self.limit.num_seqs // 2), -(-self.limit.num_tokens // 2))

    def check(self, requests: Iterable[GenerateRequest], caller: bytes = b"") -> None:
        """Raises Overloaded if these don't fit now, TooMuchAtOnce if they never will.

        caller: its `cache_salt`. Empty without keys, for everybody; with keys, for the server's own requests.
        """
        wanted, limit = Load.of(requests), self.limit_of_one if caller else self.limit
        if not wanted.fits(limit):
            raise TooMuchAtOnce(f"This request is {wanted} in all; the server holds at most {limit} for a caller.")
        for who, held, most in (
            ("in all", self.held, self.limit),
            ("for you", self._held_by.get(caller, Load()), limit),
        ):
            if not (held + wanted).fits(most):
                raise Overloaded(
                    f"The server holds {held} {who}, of at most {most}.", retry_after_s=self.retry_after_s()
                )

    @contextmanager
    def hold(self, request: GenerateRequest) -> Iterator[None]:
        """Counts the request as held until the block ends. Raises what `check` raises."""
        caller, load = request.cache_salt, Load.of([request])
        self.check([request], caller)
        self.held += load
        self._held_by[caller] = self._held_by.get(caller, Load()) + load
        try:
            yield
        finally:
            self.held -= load
            self._held_by[caller] -= load
            if not self._held_by[caller].num_seqs:
                del self._held_by[caller]

    def retry_after_s(self) -> int:
        """How long half of what is held takes at the rate measured: whole seconds, from 1 to 120."""
        per_second = self.rate.tokens_per_second
        if not per_second:
            return 1
        return max(1, min(_MAX_RETRY_AFTER_S, math.ceil(self.held.num_tokens / 2 / per_second)))


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
