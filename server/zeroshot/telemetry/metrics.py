"""The server's figures for Prometheus, under vLLM's names where the meaning is the same: dashboards for them exist.

One `Metrics` per served model. Everything is counted in the HTTP process, so that an engine's death loses no count.
Of several HTTP processes, prometheus_client's MultiProcessCollector could add up what each counts; the engine's own
figures are the same in all of them.
"""

from collections.abc import Callable
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from zeroshot.telemetry.engine_collector import EngineCollector, EngineReport
from zeroshot.telemetry.record import RequestRecord
from zeroshot.telemetry.step_histogram import StepHistogram
from zeroshot.types import FinishReason

# A step of a small model takes from 0.1 ms (GPU) to tens of ms (CPU).
_TOKEN_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_PHASE_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

REFUSALS = frozenset({401, 403, 413, 429, 503})
"""Statuses of requests that are turned away. They also end one that runs: as a 503 does when its engine is lost."""


class Metrics:
    """`render()` is the answer to GET /metrics. Label values come from closed sets only, or /metrics would grow."""

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._finished = Counter(
            "vllm:request_success",
            "Choices that ended, by reason: stop, length, abort (the caller left) or error.",
            ["model_name", "finished_reason"],
            registry=self.registry,
        )
        for reason in get_args(FinishReason):
            self._finished.labels(model_name, reason)
        self.time_to_first_token = self._histogram(
            "vllm:time_to_first_token_seconds", "From a request's arrival to its first token.", _PHASE_BUCKETS_S
        )
        self.inter_token_latency = StepHistogram(
            "vllm:inter_token_latency_seconds",
            "Between one token of a choice and the next.",
            ["model_name"],
            buckets=_TOKEN_BUCKETS_S,
            registry=self.registry,
        ).labels(model_name)
        self.e2e_latency = self._histogram(
            "vllm:e2e_request_latency_seconds", "From a request's arrival to the end of a choice.", _PHASE_BUCKETS_S
        )
        self.queue_time = self._histogram(
            "vllm:request_queue_time_seconds", "Waiting for the engine to begin.", _PHASE_BUCKETS_S
        )
        self.prefill_time = self._histogram(
            "vllm:request_prefill_time_seconds", "From there to the first token.", _PHASE_BUCKETS_S
        )
        self.decode_time = self._histogram(
            "vllm:request_decode_time_seconds", "From the first token to the last.", _PHASE_BUCKETS_S
        )
        self._http_requests = self._counter(
            "http_requests", "Answered HTTP requests; handler is the route.", "handler", "method", "status"
        )
        self._task_requests = self._counter(
            "task_requests", "Inputs given to a task, batch items one by one; status is ok or an error's code.",
            "task", "status",
        )  # fmt: skip
        self._task_cached_tokens = self._counter(
            "task_prefix_cache_hit_tokens", "Prompt tokens a task took from the prefix cache.", "task"
        )
        self._aborted = self._counter(
            "aborted_requests", "Requests ended before they were done: cancelled (the caller left) or an error's code.",
            "reason",
        )  # fmt: skip
        self._rejected = self._counter(
            "rejected", "HTTP requests turned away before they ran; reason is the error's code.", "reason"
        )

    def watch_engine(self, read: Callable[[], EngineReport]) -> None:
        """Add the engine's own figures, read at each scrape."""
        self.registry.register(EngineCollector(self.model_name, read))
        # A process that is gone has no figures: its number is not to be found in /proc.
        ProcessCollector(namespace="zeroshot_engine", pid=lambda: read().pid or "none", registry=self.registry)

    def watch_prompt_files(self, count_errors: Callable[[], int]) -> None:
        gauge = Gauge(
            "zeroshot_task_prompt_file_errors", "Prompt files not served as they stand.", registry=self.registry
        )
        gauge.set_function(count_errors)

    def choice_ended(self, reason: FinishReason) -> None:
        self._finished.labels(self.model_name, reason).inc()

    def request_aborted(self, reason: str) -> None:
        self._aborted.labels(reason).inc()

    def http_answered(self, handler: str, status: int, record: RequestRecord) -> None:
        """A refusal counts once: as an abort if an engine ran any of the request, else as a rejection."""
        self._http_requests.labels(handler, record.method, str(status)).inc()
        if status not in REFUSALS or record.error_code is None:  # "not ready" of /health is an answer, no refusal
            return
        if not record.finish_reasons:
            self._rejected.labels(record.error_code).inc()
        elif not record.was_aborted:  # it came between two of the request's calls of an engine
            self.request_aborted(record.error_code)

    def task_answered(self, task: str, status: str, cached_tokens: int = 0) -> None:
        self._task_requests.labels(task, status).inc()
        self._task_cached_tokens.labels(task).inc(cached_tokens)

    def render(self) -> bytes:
        """Text format 0.0.4."""
        return generate_latest(self.registry)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"zeroshot_{name}", documentation, labels, registry=self.registry)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...]) -> Histogram:
        family = Histogram(name, documentation, ["model_name"], buckets=buckets, registry=self.registry)
        return family.labels(self.model_name)
