"""Who a request is from and how long it may take: known once at the door, needed where it reaches the engine.

A context variable, so that no surface can forget to pass it on: `asyncio` hands it to every task a request starts.
Outside a request (start-up, the command line) it is `NOBODY`: the shared part of the prefix cache, and no deadline.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from zeroshot.errors import DeadlineExceeded, InvalidRequest


@dataclass(frozen=True, slots=True)
class Caller:
    cache_salt: bytes = b""
    """Prompts of callers with different salts share no KV blocks, except those of pinned prompts."""
    arrival: float = 0.0
    """`time.monotonic()` when the request came."""
    max_timeout_s: float = math.inf
    timeout_s: float = math.inf

    @property
    def deadline(self) -> float:
        """`time.monotonic()` at which the request ends with DeadlineExceeded."""
        return self.arrival + self.timeout_s

    @property
    def remaining_s(self) -> float | None:
        """From now until the deadline, at least 0. None if there is none: as `asyncio.timeout` takes it."""
        return None if self.timeout_s == math.inf else max(0.0, self.deadline - time.monotonic())

    @asynccontextmanager
    async def within_deadline(self) -> AsyncGenerator[None, None]:
        """Raises DeadlineExceeded where the block has not ended by the deadline."""
        try:
            async with asyncio.timeout(self.remaining_s):
                yield
        except TimeoutError:
            raise self.too_late() from None

    def too_late(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"Not finished within {self.timeout_s:g} s, the request's timeout.")


NOBODY = Caller()
CALLER: ContextVar[Caller] = ContextVar("caller", default=NOBODY)


def new_caller(cache_salt: bytes, max_timeout_s: float) -> Caller:
    """A request that arrives now and may take as long as the server allows."""
    return Caller(cache_salt, time.monotonic(), max_timeout_s, max_timeout_s)


def limit_time(timeout_s: float | None) -> None:
    """The running request asked for an earlier deadline. Raises InvalidRequest beyond the server's limit."""
    if timeout_s is None:
        return
    caller = CALLER.get()
    if timeout_s > caller.max_timeout_s:
        raise InvalidRequest(
            f"timeout is {timeout_s:g} s; this server allows at most {caller.max_timeout_s:g} s.", field="timeout"
        )
    arrival = caller.arrival or time.monotonic()
    CALLER.set(replace(caller, arrival=arrival, timeout_s=min(timeout_s, caller.timeout_s)))
