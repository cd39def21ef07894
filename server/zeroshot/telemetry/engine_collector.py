"""The engine's own figures as Prometheus families, read at each scrape from its last heartbeat."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from zeroshot.types import EngineStats

_TOTALS = {
    "vllm:prefix_cache_queries": ("prompt_tokens_total", "Prompt tokens looked up in the prefix cache."),
    "vllm:prefix_cache_hits": ("cached_tokens_total", "Prompt tokens found there."),
    "vllm:prompt_tokens": ("prompt_tokens_total", "Prompt tokens read."),
    "vllm:generation_tokens": ("generation_tokens_total", "Tokens generated."),
    "zeroshot_engine_steps": ("steps_total", "Steps of the engine; on a GPU one may be several forward passes."),
    "vllm:spec_decode_num_draft_tokens": ("guessed_tokens_total", "Tokens guessed by speculative decoding."),
    "vllm:spec_decode_num_accepted_tokens": ("accepted_tokens_total", "Guessed tokens that came."),
}


class LifetimeTotals:
    """The engine's counters over all its lives: each engine begins at 0, these go on."""

    def __init__(self) -> None:
        self._generation = 0
        self._latest = EngineStats()
        self._before = dict.fromkeys((name for name, _ in _TOTALS.values()), 0)

    def update(self, generation: int, stats: EngineStats) -> None:
        if generation != self._generation:
            self._before = {name: self[name] for name in self._before}
            self._generation = generation
        self._latest = stats

    def __getitem__(self, name: str) -> int:
        """`name` is a field of EngineStats that ends in _total."""
        latest: int = getattr(self._latest, name)
        return self._before[name] + latest


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What the client knows of the engine now."""

    is_up: bool
    pid: int | None
    num_restarts: int
    stats: EngineStats
    totals: LifetimeTotals


class EngineCollector(Collector):
    def __init__(self, model_name: str, read: Callable[[], EngineReport]) -> None:
        self._model_name = model_name
        self._read = read

    def collect(self) -> Iterable[Metric]:
        report = self._read()
        stats = report.stats
        num_used = stats.num_kv_blocks - stats.num_free_kv_blocks
        yield self._gauge("vllm:num_requests_running", "Choices in the running batch.", stats.num_running)
        yield self._gauge("vllm:num_requests_waiting", "Choices waiting for their turn.", stats.num_waiting)
        yield self._gauge(
            "vllm:kv_cache_usage_perc", "Used share of the KV cache; 1 is all.", num_used / max(1, stats.num_kv_blocks)
        )
        yield GaugeMetricFamily("zeroshot_engine_up", "1 while the engine can generate.", value=int(report.is_up))
        yield CounterMetricFamily("zeroshot_engine_restarts", "Engines replaced.", value=report.num_restarts)
        kernels = GaugeMetricFamily(
            "zeroshot_kernel_fallback",
            "1 for an op that runs another way than it could; GET /health says why.",
            labels=["op"],
        )
        for op, state in stats.kernels.items():
            kernels.add_metric([op], int(state != "triton"))
        yield kernels
        for name, (field, documentation) in _TOTALS.items():
            family = CounterMetricFamily(name, documentation, labels=["model_name"])
            family.add_metric([self._model_name], report.totals[field])
            yield family

    def _gauge(self, name: str, documentation: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, documentation, labels=["model_name"])
        family.add_metric([self._model_name], value)
        return family
