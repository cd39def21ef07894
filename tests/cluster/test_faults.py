"""Replicas and engines that die under load: every request gets a full answer or an explicit error."""

from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.cluster.load import Outcome, body_of, load_on
from tests.cluster.support import ClusterServer


@pytest.fixture(scope="module")
def expected(server: ClusterServer) -> list[str]:
    """What each of the load's twenty prompts is answered when nothing goes wrong."""
    return [server.generate(**body_of(number))["choices"][0]["text"] for number in range(20)]


def of_kind(outcomes: list[Outcome], *, is_stream: bool) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.is_stream == is_stream]


def test_the_engines_are_on_different_nodes(server: ClusterServer) -> None:
    raylets = {replica.ppid() for replica in server.replicas()}
    assert len(raylets) == 2
    assert all("raylet" in psutil.Process(pid).name() for pid in raylets)


@pytest.mark.parametrize("victims", [ClusterServer.replicas, ClusterServer.engines], ids=["replica", "its engine"])
def test_kill_9_under_load_loses_nothing(
    server: ClusterServer, expected: list[str], victims: Callable[[ClusterServer], list[psutil.Process]]
) -> None:
    with load_on(server.url) as load:
        load.wait_for(8)
        num_before = len(load.outcomes)
        victims(server)[0].kill()
        load.wait_for(num_before + 32)
    assert [outcome.lost for outcome in load.outcomes if outcome.lost is not None] == []
    assert all(outcome.text in (None, expected[outcome.number]) for outcome in load.outcomes)
    # A plain request has been sent to the other replica. A stream may have begun, and then says what happened.
    assert {outcome.error for outcome in of_kind(load.outcomes, is_stream=False)} == {None}
    errors = [outcome.error for outcome in of_kind(load.outcomes, is_stream=True) if outcome.error is not None]
    assert set(errors) <= {"engine_restarting"}
    assert len(errors) <= 8, "no more than were running"


def test_a_replica_that_hangs_is_given_up_at_the_deadline(server: ClusterServer) -> None:
    body: dict[str, Any] = {"prompt": "On and on", "max_tokens": 1000, "ignore_eos": True, "stream": True, "timeout": 2}
    replicas = server.replicas()
    try:
        with server.http.stream("POST", "/generate", json=body) as response:
            lines = response.iter_lines()
            assert "choices" in next(lines)
            for replica in replicas:
                replica.suspend()
            rest = [line for line in lines if line]
    finally:
        for replica in replicas:
            replica.resume()
    assert '"code":"timeout"' in rest[-2]
    assert rest[-1] == "data: [DONE]"
    server.wait_until_idle()


def test_a_stream_whose_replica_is_lost_says_so(server: ClusterServer) -> None:
    body: dict[str, Any] = {"prompt": "On and on", "max_tokens": 900, "ignore_eos": True, "stream": True}
    with server.http.stream("POST", "/generate", json=body) as response:
        lines = response.iter_lines()
        assert "choices" in next(lines)
        for replica in server.replicas():
            replica.kill()
        rest = [line for line in lines if line]
    assert '"code":"engine_restarting"' in rest[-2]
    assert "Send the request again" in rest[-2]
    assert rest[-1] == "data: [DONE]"
    # Nobody is there now: that is said as well, and when to come back.
    refused = server.http.post("/generate", json={"prompt": "a", "max_tokens": 1, "timeout": 0.5})
    assert refused.status_code in (503, 504)  # a new one takes seconds to start
    assert refused.json()["error"]["code"] in ("engine_restarting", "engine_unavailable", "timeout")


def test_an_ingress_that_dies_leaves_no_half_an_answer(server: ClusterServer) -> None:
    """What was running there ends in an error of the proxy's, or in a stream without its [DONE]."""
    with load_on(server.url, num_threads=4, pause_s=0.2) as load:
        load.wait_for(4)
        server.ingresses()[0].kill()
        load.wait_for(len(load.outcomes) + 4)
        server.wait_for_engines(2)
        load.wait_for(len(load.outcomes) + 4)
    plain = of_kind(load.outcomes, is_stream=False)
    assert [outcome.lost for outcome in plain if outcome.lost and outcome.lost.startswith("200")] == []
    assert load.outcomes[-1].text is not None, "it is back"
