"""What one HTTP request came to, for its access line, its metrics and its span.

`api/observe.py` opens a record when the request arrives. Whatever works on that request finds it as `CURRENT_RECORD`,
without being handed it: a context variable goes with the tasks that a request starts.
"""

import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

from zeroshot.types import FinishReason

REQUEST_ID_HEADER = "X-Request-Id"


_MAX_PHASES = 16
"""Choices whose phases a record keeps: a request can have hundreds."""


@dataclass(frozen=True, slots=True)
class Phases:
    """When one choice came to the server, got its first step, its first token (0: none) and its last output.

    In seconds of `time.monotonic()`.
    """

    arrived_at: float
    scheduled_at: float
    first_token_at: float
    last_output_at: float

    @property
    def queue_s(self) -> float:
        return self.scheduled_at - self.arrived_at

    @property
    def prefill_s(self) -> float:
        return (self.first_token_at or self.last_output_at) - self.scheduled_at

    @property
    def decode_s(self) -> float | None:
        """None if no token was wanted."""
        return self.last_output_at - self.first_token_at if self.first_token_at else None

    def spans(self) -> Iterator[tuple[str, float, float]]:
        """(name, begin, end) of each."""
        yield "queue", self.arrived_at, self.scheduled_at
        yield "prefill", self.scheduled_at, self.first_token_at or self.last_output_at
        if self.first_token_at:
            yield "decode", self.first_token_at, self.last_output_at


@dataclass(slots=True)
class RequestRecord:
    request_id: str
    method: str
    started_at: float = field(default_factory=time.monotonic)
    task: str | None = None
    error_code: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    finish_reasons: dict[FinishReason, int] = field(default_factory=dict)
    """How many choices ended for which reason."""
    phases: list[Phases] = field(default_factory=list)
    """Of the first choices that were finished."""

    def choice_ended(self, reason: FinishReason, phases: Phases | None) -> None:
        self.finish_reasons[reason] = self.finish_reasons.get(reason, 0) + 1
        if phases is not None and len(self.phases) < _MAX_PHASES:
            self.phases.append(phases)

    @property
    def was_aborted(self) -> bool:
        """Whether anything that an engine ran for it ended early, which `Metrics.request_aborted` has counted."""
        return "abort" in self.finish_reasons or "error" in self.finish_reasons

    @property
    def finish_reason(self) -> FinishReason | None:
        """The worst that happened to a choice; None if nothing was generated."""
        return max(self.finish_reasons, key=_SEVERITY.index, default=None)


_SEVERITY: tuple[FinishReason, ...] = ("stop", "length", "abort", "error")

CURRENT_RECORD: ContextVar[RequestRecord | None] = ContextVar("current_record", default=None)
"""The record of the HTTP request being worked on; None for work of the server's own."""


def note_task(name: str) -> None:
    record = CURRENT_RECORD.get()
    if record is not None:
        record.task = name


def note_error(code: str) -> None:
    """The request is being answered with this error."""
    record = CURRENT_RECORD.get()
    if record is not None:
        record.error_code = code
