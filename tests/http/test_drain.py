"""SIGTERM and Ctrl-C, with real signals: what is running ends well, what comes is told so, and it all ends in time."""

import json
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import httpx
import psutil
import pytest

BODY = {"prompt": "On and on", "max_tokens": 1000, "ignore_eos": True, "logprobs": 5}
MANY = {"prompt": "On and on", "max_tokens": 1000, "ignore_eos": True, "n": 30}
StartServer = Callable[..., AbstractContextManager[Any]]


def running(server: Any, count: int) -> None:
    server.wait_until(lambda health: health["engine"]["num_running"] == count)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_finishes_and_what_comes_is_refused(start_server: StartServer, number: int) -> None:
    with start_server() as server, ThreadPoolExecutor(2) as pool:
        server.wait_until_warm()
        post = httpx.Client(base_url=server.url, timeout=60).post
        plain = pool.submit(post, "/generate", json=BODY)
        stream = pool.submit(post, "/generate", json=BODY | {"stream": True})
        running(server, 2)
        server.process.send_signal(number)
        ready = server.wait_until(lambda health: health["status"] == "draining")
        assert ready["engine"]["num_running"] == 2
        assert server.http.get("/health/ready").status_code == 503
        assert server.http.get("/health/ready").json() == {"status": "draining"}
        assert server.http.get("/health/live").status_code == 200
        for path in ("/generate", "/v1/completions", "/tasks/translate", "/tokenize"):
            refused = server.http.post(path, json={"prompt": "a"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
            assert refused.headers["retry-after"]
        assert server.http.post("/", json={"inputs": "a"}).json()["error_type"] == "unhealthy"
        assert server.metrics()["zeroshot_rejected_total", "draining"] == 5
        assert plain.result().json()["usage"]["completion_tokens"] == 1000
        lines = [line for line in stream.result().text.split("\n") if line]
        assert lines[-1] == "data: [DONE]"
        assert json.loads(lines[-2].removeprefix("data: "))["usage"]["completion_tokens"] == 1000
        assert server.process.wait(timeout=30) == 0


def test_a_signal_to_all_of_the_servers_processes_is_the_servers_to_handle(start_server: StartServer) -> None:
    """As systemd stops a service, and a shell a job: the engine works on until the server ends it."""
    with start_server() as server, ThreadPoolExecutor(1) as pool:
        server.wait_until_warm()
        post = httpx.Client(base_url=server.url, timeout=60).post
        plain = pool.submit(post, "/generate", json=BODY)
        running(server, 1)
        parent = psutil.Process(server.process.pid)
        for process in (*parent.children(recursive=True), parent):
            process.terminate()
        answer = plain.result()
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] == 1000
        assert server.process.wait(timeout=30) == 0


def test_what_takes_too_long_ends_with_an_error_that_says_why(start_server: StartServer) -> None:
    with start_server(ZEROSHOT_DRAIN_TIMEOUT_S="0.5") as server, ThreadPoolExecutor(3) as pool:
        server.wait_until_warm()
        engine = psutil.Process(server.process.pid).children()[0]
        post = httpx.Client(base_url=server.url, timeout=60).post
        plain = pool.submit(post, "/generate", json=MANY)
        stream = pool.submit(post, "/generate", json=MANY | {"stream": True})
        openai = pool.submit(post, "/v1/completions", json=BODY | {"stream": True})
        running(server, 61)
        server.process.terminate()
        assert plain.result().status_code == 503
        assert plain.result().json()["error"]["code"] == "draining"
        assert "0.5 s" in plain.result().json()["error"]["message"]
        for future in (stream, openai):
            lines = [line for line in future.result().text.split("\n") if line]
            assert lines[-1] == "data: [DONE]"
            assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "draining"
        assert server.process.wait(timeout=30) == 0
        engine.wait(timeout=10)


def test_what_is_left_of_a_batch_is_told_so_too(start_server: StartServer) -> None:
    with start_server(ZEROSHOT_DRAIN_TIMEOUT_S="0.5") as server, ThreadPoolExecutor(1) as pool:
        server.wait_until_warm()
        post = httpx.Client(base_url=server.url, timeout=60).post
        items = [{"text": "On and on", "max_tokens": 1000} for _ in range(256)]
        batch = pool.submit(post, "/tasks/complete/batch", json={"inputs": items})
        running(server, 16)
        server.process.terminate()
        results = batch.result().json()["results"]
        assert len(results) == 256
        assert {result["error"]["code"] for result in results if "error" in result} == {"draining"}
        assert "0.5 s" in results[-1]["error"]["message"]
        assert server.process.wait(timeout=30) == 0


def test_an_idle_server_ends_at_once(start_server: StartServer) -> None:
    with start_server() as server, httpx.Client(base_url=server.url) as kept_alive:
        assert kept_alive.get("/health/live").status_code == 200
        server.process.terminate()
        assert server.process.wait(timeout=15) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_at_once(start_server: StartServer, number: int) -> None:
    with start_server(ZEROSHOT_DRAIN_TIMEOUT_S="600") as server, ThreadPoolExecutor(1) as pool:
        server.wait_until_warm()
        engine = psutil.Process(server.process.pid).children()[0]
        post = httpx.Client(base_url=server.url, timeout=60).post
        request = pool.submit(post, "/generate", json=MANY | {"n": 60})
        running(server, 60)
        server.process.send_signal(number)
        server.wait_until(lambda health: health["status"] == "draining")
        time.sleep(0.3)
        assert server.process.poll() is None
        server.process.send_signal(number)
        assert server.process.wait(timeout=15) == 128 + number
        engine.wait(timeout=10)
        assert (request.result().status_code, request.result().json()["error"]["code"]) == (503, "draining")
