"""The engine's figures over its lives."""

from prometheus_client import CollectorRegistry

from zeroshot.telemetry.engine_collector import EngineCollector, EngineReport, LifetimeTotals
from zeroshot.types import EngineStats


def test_totals_go_on_when_an_engine_begins_anew() -> None:
    totals = LifetimeTotals()
    for generation, tokens in ((1, 10), (1, 30), (3, 0), (3, 5), (4, 2)):
        totals.update(generation, EngineStats(generation_tokens_total=tokens))
    assert totals["generation_tokens_total"] == 30 + 5 + 2
    assert totals["prompt_tokens_total"] == 0


def test_what_a_scrape_shows() -> None:
    stats = EngineStats(
        num_running=3,
        num_kv_blocks=8,
        num_free_kv_blocks=6,
        prompt_tokens_total=7,
        kernels={"layer_norm": "triton", "sampling": "reference: no compiler"},
    )
    totals = LifetimeTotals()
    totals.update(1, stats)
    registry = CollectorRegistry()
    report = EngineReport(is_up=True, pid=None, num_restarts=2, stats=stats, totals=totals)
    registry.register(EngineCollector("gpt2", lambda: report))
    model = {"model_name": "gpt2"}
    assert registry.get_sample_value("vllm:num_requests_running", model) == 3
    assert registry.get_sample_value("vllm:kv_cache_usage_perc", model) == 0.25
    assert registry.get_sample_value("vllm:prompt_tokens_total", model) == 7
    assert registry.get_sample_value("zeroshot_engine_up") == 1
    assert registry.get_sample_value("zeroshot_engine_restarts_total") == 2
    assert registry.get_sample_value("zeroshot_kernel_fallback", {"op": "layer_norm"}) == 0
    assert registry.get_sample_value("zeroshot_kernel_fallback", {"op": "sampling"}) == 1
