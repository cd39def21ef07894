"""Warm-up, cosine, and the end of a run by steps or by time."""

import pytest

from training.schedule import FINAL_SHARE, Schedule

BY_STEPS = Schedule(max_lr=1e-3, warmup_steps=100, max_steps=1000)
BY_TIME = Schedule(max_lr=1e-3, warmup_steps=100, max_steps=1000, max_hours=1.0)


def test_the_first_step_is_small_and_the_warm_up_is_linear() -> None:
    assert BY_STEPS.learning_rate(0, 0) == pytest.approx(1e-5, rel=1e-3)
    assert BY_TIME.learning_rate(49, 0) == pytest.approx(0.5e-3)
    assert BY_TIME.learning_rate(99, 0) == pytest.approx(1e-3)


@pytest.mark.parametrize(("step", "share"), [(500, (1 + FINAL_SHARE) / 2), (1000, FINAL_SHARE)])
def test_the_cosine(step: int, share: float) -> None:
    assert BY_STEPS.learning_rate(step, 0) == pytest.approx(1e-3 * share)


def test_the_rate_never_rises_after_the_warm_up() -> None:
    rates = [BY_STEPS.learning_rate(step, 0) for step in range(100, 1001)]
    assert rates == sorted(rates, reverse=True)


def test_a_time_budget_replaces_the_number_of_steps() -> None:
    assert BY_TIME.learning_rate(200, 1800) == pytest.approx(1e-3 * (1 + FINAL_SHARE) / 2)
    assert BY_TIME.learning_rate(200, 3600) == pytest.approx(1e-3 * FINAL_SHARE)
    assert BY_TIME.progress(10**6, 3599) < 1
    assert BY_TIME.progress(200, 3600) == 1


def test_a_run_by_steps_ends_after_the_last_one() -> None:
    assert BY_STEPS.progress(999, 10**9) < 1
    assert BY_STEPS.progress(1000, 0) == 1
