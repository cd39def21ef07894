"""What one HTTP request came to, for its access line, its metrics and its span.

`api/observe.py` opens a record when the request arrives; whoever works for that request finds it as `current`, without
being handed it: a context variable goes with the tasks that a request starts.
"""

from contextvars import ContextVar
from dataclasses import dataclass, field

from zeroshot.types import FinishReason


@dataclass(slots=True)
class RequestRecord:
    request_id: str
    task: str | None = None
    error_code: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    finish_reasons: dict[FinishReason, int] = field(default_factory=dict)
    """How many choices ended for which reason."""

    @property
    def finish_reason(self) -> FinishReason | None:
        """The worst that happened to a choice; None if nothing was generated."""
        return max(self.finish_reasons, key=_SEVERITY.index, default=None)


_SEVERITY: tuple[FinishReason, ...] = ("stop", "length", "abort", "error")

current: ContextVar[RequestRecord | None] = ContextVar("current", default=None)
"""The record of the HTTP request being worked on; None for work of the server's own."""


def note_task(name: str) -> None:
    record = current.get()
    if record is not None:
        record.task = name


def note_error(code: str) -> None:
    """The request is being answered with this error."""
    record = current.get()
    if record is not None:
        record.error_code = code
