"""What happened to one request in the engine, and when: times for the metrics, counts for the HTTP request's record.

Times are of `time.monotonic()`, on one machine the same clock in both processes.
"""

import time
from collections.abc import Iterable

from zeroshot.telemetry.metrics import Metrics
from zeroshot.telemetry.record import CURRENT_RECORD, Phases
from zeroshot.types import FinishReason, GenerateRequest, TokenOutput

CANCELLED = "cancelled"


class Timeline:
    """`received` and `delivered` are called for every output, on the event loop: they must cost next to nothing."""

    __slots__ = (
        "_arrived_at",
        "_first_token_at",
        "_is_prewarming",
        "_last_output_at",
        "_metrics",
        "_record",
        "_scheduled_at",
        "error_code",
    )

    def __init__(self, metrics: Metrics, request: GenerateRequest) -> None:
        self._metrics = metrics
        self._record = CURRENT_RECORD.get()
        self._is_prewarming = request.pin_prompt  # the server's own work: nobody waits for it
        self._arrived_at = time.monotonic()
        self._scheduled_at = [0.0] * request.n
        self._first_token_at = [0.0] * request.n
        self._last_output_at = [0.0] * request.n
        self.error_code: str | None = None
        if self._record is not None:
            self._record.prompt_tokens += len(request.prompt_token_ids)

    def received(self, output: TokenOutput, now: float) -> None:
        index = output.choice_index
        num_tokens = len(output.token_ids)  # more than one from a runner that runs several steps at once
        if num_tokens:
            if self._first_token_at[index]:
                self._metrics.inter_token_latency.note((now - self._last_output_at[index]) / num_tokens, num_tokens)
            else:
                self._first_token_at[index] = now
                self._metrics.time_to_first_token.observe(now - self._arrived_at)
        if output.scheduled_at:
            self._scheduled_at[index] = output.scheduled_at
        self._last_output_at[index] = now

    def delivered(
        self, index: int, num_tokens: int, num_cached_tokens: int, finish_reason: FinishReason | None
    ) -> None:
        """What the caller was given of an output; nothing of one that came after a stop string."""
        if self._record is not None:
            self._record.completion_tokens += num_tokens
            if index == 0:  # the others find in the cache what this one has put there
                self._record.cached_tokens += num_cached_tokens
        if finish_reason is not None:
            self._choice_ended(index, finish_reason)

    def ended(self, unfinished: Iterable[int]) -> None:
        """`unfinished`: the choices that got no finish reason, because the caller left or `error_code` was raised."""
        reason: FinishReason = "abort" if self.error_code is None else "error"
        is_aborted = False
        for index in unfinished:
            is_aborted = True
            self._choice_ended(index, reason)
        if is_aborted and not self._is_prewarming:
            self._metrics.request_aborted(self.error_code or CANCELLED)

    def _choice_ended(self, index: int, reason: FinishReason) -> None:
        if self._is_prewarming:
            return
        self._metrics.choice_ended(reason)
        phases = self._observe(index) if reason in ("stop", "length") else None
        if self._record is not None:
            self._record.choice_ended(reason, phases)

    def _observe(self, index: int) -> Phases | None:
        """None for an engine on another machine: when it began is not known by this machine's clock."""
        self._metrics.e2e_latency.observe(self._last_output_at[index] - self._arrived_at)
        if not self._scheduled_at[index]:
            return None
        phases = Phases(
            self._arrived_at, self._scheduled_at[index], self._first_token_at[index], self._last_output_at[index]
        )
        self._metrics.queue_time.observe(phases.queue_s)
        self._metrics.prefill_time.observe(phases.prefill_s)
        if phases.decode_s is not None:
            self._metrics.decode_time.observe(phases.decode_s)
        return phases
