"""More work than the server takes, and requests that take longer than they may."""

import json
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import Any

import pytest

from tests.support.raw_http import connect, post_raw

LONG = {"prompt": "On and on", "max_tokens": 1000, "ignore_eos": True, "logprobs": 5}
StartServer = Callable[..., AbstractContextManager[Any]]


def test_the_queue_is_bounded_in_tokens_too(start_server: StartServer) -> None:
    with start_server(ZEROSHOT_MAX_QUEUED_TOKENS="2500") as server:
        server.wait_until_warm()
        with closing(post_raw(server, "/generate", LONG | {"n": 2})):
            server.wait_until(lambda health: health["engine"]["num_running"] == 2)
            for path, body in (
                ("/generate", {"prompt": "a", "max_tokens": 600}),
                ("/v1/completions", {"prompt": "a", "max_tokens": 600}),
                ("/", {"inputs": "a", "parameters": {"max_new_tokens": 600}}),
                ("/score", {"token_ids": [1] * 600}),
                ("/tasks/complete", {"text": "a", "max_tokens": 600}),
            ):
                refused = server.http.post(path, json=body)
                assert refused.status_code == 429, path
                assert 1 <= int(refused.headers["retry-after"]) <= 120
            small = server.http.post("/generate", json={"prompt": "a", "max_tokens": 20})
            assert small.status_code == 200
        too_large = server.http.post("/generate", json=LONG | {"n": 3})
        assert too_large.status_code == 400
        assert "at most" in too_large.json()["error"]["message"]
        server.wait_until_idle()


def test_a_request_of_many_prompts_is_refused_as_a_whole(start_server: StartServer) -> None:
    with start_server(ZEROSHOT_MAX_QUEUED_SEQS="8") as server:
        server.wait_until_warm()
        with closing(post_raw(server, "/generate", LONG | {"n": 4})):
            server.wait_until(lambda health: health["engine"]["num_running"] == 4)
            before = server.health()["engine"]["prompt_tokens_total"]
            assert server.http.post("/generate", json={"prompt": ["a"] * 5, "max_tokens": 2}).status_code == 429
            assert server.health()["engine"]["prompt_tokens_total"] == before, "a part of it ran"
            answer = server.http.post("/generate", json={"prompt": ["a"] * 4, "max_tokens": 2})
            assert answer.status_code == 200
        server.wait_until_idle()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", LONG | {"timeout": 0.3}),
        ("/generate", LONG | {"prompt": ["a", "b", "c"], "timeout": 0.3}),
        ("/v1/completions", {"prompt": "a", "max_tokens": 1000, "ignore_eos": True, "logprobs": 5, "timeout": 0.3}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 900, "timeout": 0.01}),
        ("/tasks/complete", {"text": "a", "max_tokens": 1000, "timeout": 0.05}),
        ("/tasks/answer", {"question": "a", "timeout": 0.001}),
        ("/score", {"text": ["word " * 900] * 20, "timeout": 0.05}),
    ],
)
def test_a_request_that_takes_longer_than_it_may(server: Any, path: str, body: dict[str, Any]) -> None:
    response = server.http.post(path, json=body)
    assert response.status_code == 504
    error = response.json()["error"]
    assert error["code"] == "timeout"
    assert f"{body['timeout']:g} s" in error["message"]
    server.wait_until_idle()
    assert server.generate(prompt="next", max_tokens=3)["choices"]


@pytest.mark.parametrize("path", ["/generate", "/v1/completions"])
def test_a_stream_that_takes_longer_ends_with_an_error_event(server: Any, path: str) -> None:
    response = server.http.post(path, json=LONG | {"stream": True, "timeout": 0.4})
    assert response.status_code == 200
    lines = [line.removeprefix("data: ") for line in response.text.split("\n") if line]
    assert lines[-1] == "[DONE]"
    assert json.loads(lines[-2])["error"]["code"] == "timeout"
    assert len(lines) > 3, "what came in time was sent"
    server.wait_until_idle()


def test_the_deadline_passes_in_the_queue(start_server: StartServer) -> None:
    with start_server("--max-num-seqs", "1") as server:
        server.wait_until_warm()
        with closing(post_raw(server, "/generate", LONG)):
            server.wait_until(lambda health: health["engine"]["num_running"] == 1)
            waiting = server.http.post("/generate", json={"prompt": "a", "max_tokens": 1, "timeout": 0.2})
            assert (waiting.status_code, waiting.json()["error"]["code"]) == (504, "timeout")
            stream = server.http.post("/generate", json={"prompt": "a", "stream": True, "timeout": 0.2})
            assert (stream.status_code, stream.json()["error"]["code"]) == (504, "timeout")
            server.wait_until(lambda health: health["engine"]["num_waiting"] == 0)
        server.wait_until_idle()


def test_the_servers_own_limit(start_server: StartServer) -> None:
    with start_server(ZEROSHOT_REQUEST_TIMEOUT_S="0.5") as server:
        server.wait_until_warm()
        slow = server.http.post("/generate", json=LONG)
        assert (slow.status_code, slow.json()["error"]["code"]) == (504, "timeout")
        tgi = server.http.post("/", json={"inputs": "a", "parameters": {"max_new_tokens": 1000, "details": True}})
        assert tgi.status_code in (200, 504)
        more = server.http.post("/generate", json={"prompt": "a", "timeout": 60})
        assert (more.status_code, more.json()["error"]["field"]) == (400, "timeout")
        server.wait_until_idle()


def test_in_a_batch_only_the_items_that_were_late_are_errors(server: Any) -> None:
    inputs = [{"text": "a", "max_tokens": 1}, {"text": "b", "max_tokens": 1000, "timeout": 0.1}]
    answer = server.http.post("/tasks/complete/batch", json={"inputs": inputs})
    assert answer.status_code == 200
    first, second = answer.json()["results"]
    assert first["usage"]["completion_tokens"] == 1
    assert second["error"]["code"] == "timeout"


@pytest.mark.parametrize("timeout", [0, -1, True, "5", None, 1e9, 1e400])
def test_timeouts_that_are_none(server: Any, timeout: Any) -> None:
    response = server.http.post(
        "/generate",
        content=json.dumps({"prompt": "a", "max_tokens": 1, "timeout": timeout}),
        headers={"content-type": "application/json"},
    )
    if timeout is None:
        assert response.status_code == 200
    else:
        assert (response.status_code, response.json()["error"]["field"]) == (422, "timeout")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"prompt": ["a"] * 128, "max_tokens": 1000, "logprobs": 20}),
        ("/generate", {"prompt": "a", "n": 128, "max_tokens": 1000, "logprobs": 1}),
        ("/generate", {"prompt": ["a"] * 128, "max_tokens": 1000, "logprobs": 20, "stream": True}),
        ("/v1/completions", {"prompt": ["a"] * 128, "max_tokens": 1000, "logprobs": 5}),
        ("/v1/completions", {"prompt": [[1] * 1000] * 128, "max_tokens": 1, "logprobs": 5, "echo": True}),
        ("/v1/chat/completions",
         {"messages": [{"role": "user", "content": "a"}], "n": 64, "max_tokens": 900, "logprobs": True,
          "top_logprobs": 20}),
        ("/score", {"token_ids": [[1] * 1000] * 128, "top_logprobs": 20}),
        ("/", {"inputs": "a", "parameters": {"max_new_tokens": 1000, "details": True, "top_n_tokens": 20,
                                             "best_of": 64, "do_sample": True}}),
    ],
)  # fmt: skip
def test_an_answer_too_large_to_write_is_refused_before_it_costs_anything(
    server: Any, path: str, body: dict[str, Any]
) -> None:
    response = server.http.post(path, json=body)
    assert response.status_code == (422 if path == "/" else 400)
    assert "log-probabilities" in response.text
    server.wait_until_idle()


def test_a_client_that_reads_nothing_is_cut_off(start_server: StartServer) -> None:
    """Else its answer would wait in memory for as long as it likes."""
    with start_server(ZEROSHOT_SEND_TIMEOUT_S="1") as server:
        body = {"prompt": "a", "max_tokens": 1000, "n": 16, "ignore_eos": True, "stream": True, "logprobs": 5}
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
            content = json.dumps(body).encode()
            head = f"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n"
            deaf.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + content)
            server.wait_until(lambda health: health["engine"]["num_running"] > 0)
            server.wait_until_idle()
            assert server.health()["engine"]["generation_tokens_total"] < 16_000, "what it asked for goes on for nobody"
            assert "has not read" in server.log.read_text()


def test_the_beginning_of_the_next_request_breaks_no_answer(start_server: StartServer) -> None:
    """It has its time from the end of the answer on: before, its 408 would end up in the middle of it."""
    with start_server(ZEROSHOT_RECEIVE_TIMEOUT_S="0.2") as server, connect(server.url) as connection:
        body = {"prompt": "a", "max_tokens": 800, "ignore_eos": True, "stream": True}
        content = json.dumps(body).encode()
        head = f"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n"
        connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + content)
        connection.recv(1)
        connection.sendall(b"GET /health/live HT")
        received = b""
        while piece := connection.recv(65536):
            received += piece
        answer, _, rest = received.partition(b"data: [DONE]")
        assert answer.count(b"data: ") > 700
        assert b"HTTP/1.1 408" not in answer
        assert b"HTTP/1.1 408" in rest
