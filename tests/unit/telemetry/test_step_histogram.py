"""It says what prometheus_client's own histogram says."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from zeroshot.telemetry.step_histogram import StepHistogram

BUCKETS = (0.001, 0.01, 0.1)
amounts = st.sampled_from([0.0, 0.0005, 0.001, 0.002, 0.01, 0.1, 0.5]) | st.floats(0, 1)


@given(st.lists(st.lists(amounts, max_size=6), max_size=6))
def test_it_counts_what_the_original_counts(steps: list[list[float]]) -> None:
    ours_registry, theirs_registry = CollectorRegistry(), CollectorRegistry()
    ours = StepHistogram("seconds", "x", ["model"], buckets=BUCKETS, registry=ours_registry).labels("m")
    theirs = Histogram("seconds", "x", ["model"], buckets=BUCKETS, registry=theirs_registry).labels("m")
    for step in steps:
        for amount in step:
            ours.note(amount)
            theirs.observe(amount)
        ours.flush()
    sums = [registry.get_sample_value("seconds_sum", {"model": "m"}) for registry in (ours_registry, theirs_registry)]
    assert abs(sums[0] - sums[1]) < 1e-9

    def buckets(registry: CollectorRegistry) -> list[str]:
        lines = generate_latest(registry).decode().splitlines()
        return [line for line in lines if line.startswith(("seconds_bucket", "seconds_count"))]

    assert buckets(ours_registry) == buckets(theirs_registry)
