"""The bound on the queue, and the advice to those it refuses."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroshot.admission import Admission, Load, ServiceRate, weight
from zeroshot.caller import CALLER, limit_time, new_caller
from zeroshot.errors import InvalidRequest, Overloaded
from zeroshot.types import EngineStats, GenerateRequest, SamplingParams


def request(prompt_tokens: int = 10, max_tokens: int = 10, n: int = 1) -> GenerateRequest:
    params = SamplingParams(max_tokens=max_tokens)
    return GenerateRequest(request_id="r", prompt_token_ids=[1] * prompt_tokens, sampling_params=params, n=n)


def test_both_bounds() -> None:
    admission = Admission(max_seqs=4, max_tokens=100)
    with (
        admission.hold(request(n=2)),
        admission.hold(request(n=2)),
        pytest.raises(Overloaded, match=r"4 sequences .* of at most 4"),
    ):
        admission.check([request(1, 1)])
    with admission.hold(request(40, 41)), pytest.raises(Overloaded, match=r"81 tokens in all, of at most .* 100"):
        admission.check([request()])
    admission.check([request(40, 60)])
    assert admission.held == Load()


@pytest.mark.parametrize("requests", [[request(n=5)], [request()] * 5, [request(90, 11)], [request(1, 20)] * 5])
def test_what_can_never_fit_is_no_matter_of_waiting(requests: list[GenerateRequest]) -> None:
    with pytest.raises(InvalidRequest, match="Send it in parts"):
        Admission(max_seqs=4, max_tokens=100).check(requests)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30), st.integers(1, 3), st.booleans()), max_size=40))
def test_never_more_than_the_bound_and_all_given_back(events: list[tuple[int, int, int, bool]]) -> None:
    admission = Admission(max_seqs=6, max_tokens=200)
    held, refusals = [], []
    for prompt_tokens, max_tokens, n, ends_one in events:
        context = admission.hold(request(prompt_tokens, max_tokens, n))
        try:
            context.__enter__()
        except Overloaded as error:
            refusals.append(error.retry_after_s)
        else:
            held.append((context, weight(request(prompt_tokens, max_tokens, n))))
        assert admission.held.num_seqs <= 6
        assert admission.held.num_tokens == sum(tokens for _, tokens in held) <= 200
        if ends_one and held:
            held.pop()[0].__exit__(None, None, None)
    assert all(1 <= retry_after_s <= 120 for retry_after_s in refusals)
    for context, _ in held:
        context.__exit__(None, None, None)
    assert admission.held == Load()
    assert admission._held_by == {}


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(1, 3), st.integers(1, 60)), max_size=30),
    st.data(),
)
def test_one_of_several_callers_holds_half_at_most(events: list[tuple[bytes, int, int]], data: st.DataObject) -> None:
    admission = Admission(max_seqs=7, max_tokens=200)
    admission.share_among(3)
    held: dict[bytes, list[Any]] = {b"a": [], b"b": [], b"c": []}
    for caller, n, prompt_tokens in events:
        wanted = msgspec.structs.replace(request(prompt_tokens, 0, n), cache_salt=caller)
        context = admission.hold(wanted)
        try:
            context.__enter__()
        except (Overloaded, InvalidRequest):
            pass
        else:
            held[caller].append((context, wanted))
        for who, contexts in held.items():
            of_one = Load.of([wanted for _, wanted in contexts])
            assert of_one.fits(Load(4, 100))
            assert admission._held_by.get(who, Load()) == of_one
        if held[caller] and data.draw(st.booleans()):
            held[caller].pop()[0].__exit__(None, None, None)
    for contexts in held.values():
        for context, _ in contexts:
            context.__exit__(None, None, None)
    assert admission.held == Load()


def test_the_only_caller_and_the_server_itself_may_hold_it_all() -> None:
    admission = Admission(max_seqs=4, max_tokens=100)
    admission.share_among(1)
    admission.check([request(50, 50)], b"a")
    admission.share_among(2)
    admission.check([request(50, 50)], b"")
    with pytest.raises(InvalidRequest, match="at most 2 sequences and 50 tokens for a caller"):
        admission.check([request(50, 50)], b"a")


def stats(tokens: int) -> EngineStats:
    return EngineStats(prompt_tokens_total=tokens // 2, generation_tokens_total=tokens - tokens // 2)


def test_retry_after_is_the_time_half_the_queue_takes() -> None:
    admission = Admission(max_seqs=100, max_tokens=10_000)
    with admission.hold(request(3000, 5000)):
        assert admission.retry_after_s() == 1, "nothing measured yet"
        for second in range(5):
            admission.rate.observe(stats(200 * second), float(second))
        assert admission.rate.tokens_per_second == pytest.approx(200)
        assert admission.retry_after_s() == 20
    assert admission.retry_after_s() == 1


def test_idle_time_is_not_slowness_and_a_new_engine_starts_from_zero() -> None:
    rate = ServiceRate()
    rate.observe(stats(0), 0.0)
    rate.observe(stats(100), 1.0)
    for second in range(2, 3600):
        rate.observe(stats(100), float(second))
    rate.observe(stats(200), 3600.0)
    assert rate.tokens_per_second == pytest.approx(100)
    rate.observe(stats(0), 3601.0)
    rate.observe(stats(100), 3602.0)
    assert rate.tokens_per_second == pytest.approx(100)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    rate = ServiceRate()
    for second in range(100):
        rate.observe(stats(1000 * second), float(second))
    for second in range(100, 120):
        rate.observe(stats(99_000 + 10 * (second - 99)), float(second))
    assert rate.tokens_per_second == pytest.approx(10)


def test_a_request_may_ask_for_less_time_but_not_for_more() -> None:
    token = CALLER.set(new_caller(b"", 60.0))
    try:
        limit_time(None)
        assert CALLER.get().timeout_s == 60
        limit_time(5.0)
        limit_time(20.0)
        assert CALLER.get().timeout_s == 5
        with pytest.raises(InvalidRequest, match="at most 60 s") as refusal:
            limit_time(61.0)
        assert refusal.value.field == "timeout"
    finally:
        CALLER.reset(token)
