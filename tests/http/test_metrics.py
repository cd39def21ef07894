"""GET /metrics of a real server, read by prometheus_client's own parser."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from zeroshot.engine.messages import HEARTBEAT_S

LONG = {"prompt": "On and on", "max_tokens": 1000, "ignore_eos": True, "logprobs": 5}
Figures = dict[tuple[str, ...], float]


def growth(before: Figures, after: Figures, name: str, *labels: str) -> float:
    return after[name, *labels] - before.get((name, *labels), 0)


def settled(server: Any) -> Figures:
    """Once the engine is idle and has said so: its figures come with its heartbeat.

    The next one: a request that was left may have got a token since the last.
    """
    server.wait_until_idle()
    time.sleep(2 * HEARTBEAT_S)
    server.wait_until_idle()
    figures: Figures = server.metrics()
    return figures


@pytest.fixture(scope="module")
def warm(server: Any) -> Any:
    server.wait_until_warm()
    return server


@pytest.fixture(scope="module")
def model(server: Any) -> str:
    name: str = server.health()["model"]
    return name


def test_a_success_is_counted(warm: Any, model: str) -> None:
    before = settled(warm)
    answer = warm.generate(prompt="Nobody has asked this before", n=2, max_tokens=5, ignore_eos=True)
    after = settled(warm)
    usage = answer["usage"]
    assert growth(before, after, "vllm:request_success_total", "length", model) == 2
    assert growth(before, after, "vllm:generation_tokens_total", model) == 10
    assert growth(before, after, "vllm:prompt_tokens_total", model) == 2 * usage["prompt_tokens"]
    assert growth(before, after, "vllm:prefix_cache_queries_total", model) == 2 * usage["prompt_tokens"]
    assert growth(before, after, "zeroshot_http_requests_total", "/generate", "POST", "200") == 1
    for name, count in {
        "time_to_first_token": 2, "inter_token_latency": 8, "e2e_request_latency": 2,
        "request_queue_time": 2, "request_prefill_time": 2, "request_decode_time": 2,
    }.items():  # fmt: skip
        assert growth(before, after, f"vllm:{name}_seconds_count", model) == count, name
    assert after["vllm:num_requests_running", model] == after["vllm:num_requests_waiting", model] == 0
    assert after["vllm:kv_cache_usage_perc", model] == 0
    assert after["zeroshot_engine_up",] == 1


def test_a_requests_phases_add_up(warm: Any, model: str) -> None:
    before = settled(warm)
    warm.generate(prompt="How long did that take?", max_tokens=20, ignore_eos=True)
    after = settled(warm)

    def seconds(name: str) -> float:
        return growth(before, after, f"vllm:{name}_seconds_sum", model)

    phases = seconds("request_queue_time") + seconds("request_prefill_time") + seconds("request_decode_time")
    assert phases == pytest.approx(seconds("e2e_request_latency"))
    assert seconds("inter_token_latency") == pytest.approx(seconds("request_decode_time"))
    to_first = seconds("request_queue_time") + seconds("request_prefill_time")
    assert seconds("time_to_first_token") == pytest.approx(to_first)
    assert min(seconds("request_queue_time"), seconds("request_prefill_time")) > 0


def test_a_cached_prefix_is_a_hit(warm: Any, model: str) -> None:
    prompt = "The same long prompt again and again, so that whole blocks of it are in the cache: " * 2
    warm.generate(prompt=prompt, max_tokens=1)
    before = settled(warm)
    usage = warm.generate(prompt=prompt, max_tokens=1)["usage"]
    after = settled(warm)
    assert usage["cached_tokens"] >= 16
    assert growth(before, after, "vllm:prefix_cache_hits_total", model) == usage["cached_tokens"]


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_caller_that_leaves_is_an_abort(warm: Any, model: str, is_stream: bool) -> None:
    before = settled(warm)
    connection = warm.start_request("/generate", LONG | {"stream": is_stream})
    warm.wait_until(lambda health: health["engine"]["num_running"] == 1)
    if is_stream:
        connection.recv(1)  # its status has been sent
    connection.close()
    after = settled(warm)
    assert growth(before, after, "zeroshot_aborted_requests_total", "cancelled") == 1
    assert growth(before, after, "vllm:request_success_total", "abort", model) == 1
    status = "200" if is_stream else "499"
    assert growth(before, after, "zeroshot_http_requests_total", "/generate", "POST", status) == 1


def test_tasks_are_counted_by_name_and_outcome(warm: Any) -> None:
    before = settled(warm)
    items = [{"text": "A fine film."}, {"txt": "no"}, {"text": "Dull."}]
    assert warm.http.post("/tasks/sentiment/batch", json={"inputs": items}).status_code == 200
    assert warm.http.post("/tasks/sentiment", json={"text": "Well."}).status_code == 200
    assert warm.http.post("/tasks/sentiment", json={}).status_code == 422
    cached = warm.http.post("/tasks/answer", json={"question": "Who?"}).json()["usage"]["cached_tokens"]
    after = settled(warm)
    assert cached >= 16
    assert growth(before, after, "zeroshot_task_requests_total", "ok", "sentiment") == 3
    assert growth(before, after, "zeroshot_task_requests_total", "validation_error", "sentiment") == 2
    assert growth(before, after, "zeroshot_task_prefix_cache_hit_tokens_total", "answer") == cached
    assert growth(before, after, "zeroshot_http_requests_total", "/tasks/{name}", "POST", "200") == 2
    assert growth(before, after, "zeroshot_http_requests_total", "/tasks/{name}/batch", "POST", "200") == 1


def test_head_is_counted_by_its_route(warm: Any) -> None:
    before = settled(warm)
    assert warm.http.head("/tasks/sentiment").status_code == 200
    after = settled(warm)
    assert growth(before, after, "zeroshot_http_requests_total", "/tasks/{name}", "HEAD", "200") == 1


def test_made_up_names_add_no_series(warm: Any) -> None:
    def attack(round_number: int) -> None:
        for number in range(10):
            name = f"made-up-{round_number}-{number}"
            warm.http.get(f"/{name}")
            warm.http.post(f"/tasks/{name}", json={})
            warm.http.post(f"/tasks/{name}/batch", json={})
            warm.http.post("/v1/completions", json={"model": name, "prompt": name})
            warm.http.request(name.upper().replace("-", ""), "/generate")
            warm.http.get("/health", headers={"X-Request-Id": name})

    attack(0)
    before = settled(warm)
    attack(1)
    after = settled(warm)
    assert {*after} == {*before}
    assert growth(before, after, "zeroshot_http_requests_total", "/tasks/{name}", "POST", "404") == 10
    assert growth(before, after, "zeroshot_http_requests_total", "unmatched", "GET", "404") == 10


def test_rejections_are_counted_by_reason(start_server: Callable[..., AbstractContextManager[Any]]) -> None:
    with start_server(ZEROSHOT_MAX_QUEUED_SEQS="1", ZEROSHOT_MAX_BODY_BYTES="2048") as server:
        server.wait_until_warm()
        running = server.start_request("/generate", LONG)
        server.wait_until(lambda health: health["engine"]["num_running"] == 1)
        assert server.http.post("/generate", json={"prompt": "a"}).status_code == 429
        running.close()
        assert server.http.post("/generate", json={"prompt": "a" * 3000}).status_code == 413
        figures = server.metrics()
    assert figures["zeroshot_rejected_total", "overloaded"] == 1
    assert figures["zeroshot_rejected_total", "request_too_large"] == 1
    assert figures["zeroshot_http_requests_total", "/health/ready", "GET", "503"] > 0  # while it was loading
    assert len([key for key in figures if key[0] == "zeroshot_rejected_total"]) == 2


def test_counts_survive_the_engine(fresh_server: Any) -> None:
    model = fresh_server.health()["model"]
    fresh_server.wait_until_warm()
    fresh_server.generate(prompt="before", max_tokens=30, ignore_eos=True)
    before = settled(fresh_server)
    connection = fresh_server.start_request("/generate", LONG)
    fresh_server.wait_until(lambda health: health["engine"]["num_running"] == 1)
    os.kill(fresh_server.engine_pid(), signal.SIGKILL)
    fresh_server.wait_until(lambda health: health["status"] == "restarting")
    down = fresh_server.metrics()
    assert down["zeroshot_engine_up",] == 0
    assert fresh_server.http.post("/generate", json={"prompt": "a"}).status_code == 503
    assert b"503" in connection.recv(100)
    connection.close()
    fresh_server.wait_until(lambda health: health["engine_restarts"] == 1)
    fresh_server.wait_until_warm()
    fresh_server.generate(prompt="after", max_tokens=30, ignore_eos=True)
    after = settled(fresh_server)
    assert after["zeroshot_engine_restarts_total",] == 1
    assert growth(before, after, "zeroshot_aborted_requests_total", "engine_restarting") == 1
    assert growth(before, after, "zeroshot_rejected_total", "engine_restarting") == 1  # what came while it was away
    assert growth(before, after, "vllm:request_success_total", "error", model) == 1
    assert growth(before, after, "vllm:generation_tokens_total", model) >= 30
    counters = [key for key in before if key[0].endswith(("_total", "_count", "_bucket"))]
    assert [key for key in counters if after[key] < before[key] and "process" not in key[0]] == []
