"""A run that goes on from another's weights reports both."""

from typing import Any

from training.report import continued


def _run(steps: int, *, loss: float) -> dict[str, Any]:
    entry = {"step": steps, "tokens": 10 * steps, "elapsed_s": 60.0, "loss": loss}
    return {"steps": steps, "tokens": 10 * steps, "wall_time_min": 1.0, "max_lr": loss, "log": [entry]}


def test_totals_and_curves_are_joined() -> None:
    both = continued(_run(5, loss=3.0), _run(7, loss=2.0))
    assert (both["steps"], both["tokens"], both["wall_time_min"]) == (12, 120, 2.0)
    assert [entry["step"] for entry in both["log"]] == [5, 12]
    assert [entry["elapsed_s"] for entry in both["log"]] == [60.0, 120.0]
    assert [stage["steps"] for stage in both["stages"]] == [5, 7]
    assert not any("log" in stage for stage in both["stages"])


def test_a_third_run_is_a_third_stage() -> None:
    three = continued(continued(_run(5, loss=3.0), _run(7, loss=2.0)), _run(1, loss=1.0))
    assert [stage["steps"] for stage in three["stages"]] == [5, 7, 1]
    assert three["steps"] == 13
