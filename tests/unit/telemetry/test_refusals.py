"""A request that is refused is in one counter: rejected if none of it ran, aborted if some did."""

from collections.abc import Iterator
from contextlib import contextmanager

from zeroshot.telemetry.metrics import Metrics
from zeroshot.telemetry.record import CURRENT_RECORD, RequestRecord
from zeroshot.telemetry.timeline import Timeline
from zeroshot.types import GenerateRequest, SamplingParams

REQUEST = GenerateRequest(request_id="r", prompt_token_ids=[1, 2], sampling_params=SamplingParams())


@contextmanager
def answered(metrics: Metrics, status: int, error_code: str | None) -> Iterator[None]:
    """One HTTP request: the block is what an engine does for it."""
    record = RequestRecord("id", "POST", error_code=error_code)
    token = CURRENT_RECORD.set(record)
    yield
    CURRENT_RECORD.reset(token)
    metrics.http_answered("/generate", status, record)


def counted(metrics: Metrics) -> dict[str, float]:
    """Both counters, by their label."""
    return {
        f"{family.name.removeprefix('zeroshot_')} {sample.labels['reason']}": sample.value
        for family in metrics.registry.collect()
        if family.name in ("zeroshot_rejected", "zeroshot_aborted_requests")
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def test_one_that_never_ran_is_rejected() -> None:
    metrics = Metrics("demo")
    with answered(metrics, 429, "overloaded"):
        pass
    with answered(metrics, 503, None):  # what /health says of a server that is not ready
        pass
    assert counted(metrics) == {"rejected overloaded": 1}


def test_one_whose_engine_is_lost_is_aborted() -> None:
    metrics = Metrics("demo")
    with answered(metrics, 503, "engine_restarting"):
        timeline = Timeline(metrics, REQUEST)
        timeline.error_code = "engine_restarting"
        timeline.ended(unfinished=[0])
    assert counted(metrics) == {"aborted_requests engine_restarting": 1}


def test_one_whose_engine_is_lost_between_two_of_its_calls_is_aborted() -> None:
    """As of a task that scores its labels in several calls."""
    metrics = Metrics("demo")
    with answered(metrics, 503, "engine_restarting"):
        timeline = Timeline(metrics, REQUEST)
        timeline.delivered(0, 1, 0, "length")
        timeline.ended(unfinished=[])
    assert counted(metrics) == {"aborted_requests engine_restarting": 1}
