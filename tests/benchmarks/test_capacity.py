"""The queueing model of `benchmarks/capacity.py`, against what is known in closed form and what was measured."""

import json
import statistics
from pathlib import Path

import pytest

from benchmarks.capacity_model import Curve, percentile, replicas_needed, simulate

ROOT = Path(__file__).parents[2]
ONE_AT_A_TIME = Curve((1, 64), (4.0, 4.0))
"""As fast with many at once as with one: what they share is the same."""
NO_SHARING = Curve((1, 64), (4.0, 256.0))
"""Twice as many requests, twice the speed."""


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_processor_sharing_takes_the_service_time_by_the_idle_share(load: float) -> None:
    """The mean of M/G/1 processor sharing, whatever the sizes: S / (1 - load)."""
    latencies = simulate(ONE_AT_A_TIME, num_replicas=1, rate=4.0 * load, num_requests=60_000)
    assert statistics.mean(latencies) == pytest.approx(0.25 / (1 - load), rel=0.05)


def test_without_sharing_every_request_takes_as_long_as_one_alone() -> None:
    latencies = simulate(NO_SHARING, num_replicas=1, rate=20.0, num_requests=5_000)
    assert statistics.mean(latencies) == pytest.approx(0.25, rel=1e-6)
    assert max(latencies) == pytest.approx(0.25, rel=1e-6)


def test_two_replicas_with_a_choice_are_better_than_one_with_half_the_load() -> None:
    alone = simulate(ONE_AT_A_TIME, num_replicas=1, rate=2.8, num_requests=40_000)
    two = simulate(ONE_AT_A_TIME, num_replicas=2, rate=5.6, num_requests=40_000)
    assert statistics.mean(two) < statistics.mean(alone)


def test_a_curve_between_and_beyond_its_points() -> None:
    curve = Curve.of([{"concurrency": 4, "requests_per_s": 8.0}, {"concurrency": 1, "requests_per_s": 5.0}])
    assert [curve.at(1), curve.at(2), curve.at(4), curve.at(100)] == [5.0, 6.0, 8.0, 8.0]
    assert curve.best == 8.0


def test_enough_replicas_and_not_many_more() -> None:
    for rate in (3.0, 30.0, 3000.0):
        replicas, latencies = replicas_needed(ONE_AT_A_TIME, rate, limit_s=1.0)
        assert percentile(latencies, 0.99) <= 1.0
        assert rate / 4.0 < replicas < 3 * rate / 4.0 + 2
    with pytest.raises(ValueError, match="no number of replicas"):
        replicas_needed(ONE_AT_A_TIME, 3.0, limit_s=0.2)


def test_the_page_says_what_the_result_file_says() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "capacity.json").read_text())
    page = (ROOT / "docs" / "cluster.md").read_text()
    for row in result["plan"]:
        assert f"| {row['requests_per_minute']:,.0f} | {row['replicas']:,} |" in page
    check = result["check_with_two_replicas"]
    for quantile, measured in check["measured"].items():
        assert str(measured) in page
        assert abs(check["modelled"][quantile] / measured - 1) < 0.1, "the model is as good as the page says"
