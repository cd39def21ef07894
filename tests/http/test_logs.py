"""What a real server writes down: one line a request, nothing of its text, and no way to forge a line."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

StartServer = Callable[..., AbstractContextManager[Any]]
FORGED = 'x\r\n2026-01-01T00:00:00.000Z INFO server: forged\x1b[31m\u202e\u2028{"message": "forged"}'


@pytest.fixture(scope="module")
def start_logging(gpt2_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> StartServer:
    from tests.support.server import run_server

    return lambda *arguments: run_server(gpt2_checkpoint.folder, tmp_path_factory.mktemp("logs"), *arguments)


@pytest.fixture(scope="module")
def json_server(start_logging: StartServer) -> Iterator[Any]:
    with start_logging("--log-format", "json") as server:
        yield server


@pytest.fixture(scope="module")
def text_server(start_logging: StartServer) -> Iterator[Any]:
    with start_logging("--log-prompts") as server:
        yield server


def json_lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_bytes().split(b"\n") if line]


def access_line(server: Any, request_id: str) -> dict[str, Any]:
    """The one access line of the request; it may come a moment after the answer."""
    for _ in range(100):
        lines = [line for line in json_lines(server.log) if line.get("request_id") == request_id]
        if lines:
            (line,) = lines
            assert line["logger"] == "zeroshot.access"
            return line
        time.sleep(0.05)
    raise AssertionError(server.log.read_text())


def post(server: Any, path: str, body: Any, **headers: str) -> Any:
    return server.http.post(path, json=body, headers=headers)


def test_one_line_a_request_says_what_it_was(json_server: Any) -> None:
    body = {"prompt": "Hello there", "max_tokens": 5, "ignore_eos": True}
    for is_stream in (False, True):
        request_id = f"test-{is_stream}"
        answer = post(json_server, "/generate", body | {"stream": is_stream}, **{"X-Request-Id": request_id})
        assert answer.headers["x-request-id"] == request_id
        line = access_line(json_server, request_id)
        assert line.pop("duration_ms") > 0
        assert line.pop("time").endswith("Z")
        assert line == {
            "level": "info", "process": "server", "logger": "zeroshot.access", "message": "request",
            "request_id": request_id, "client": "127.0.0.1", "method": "POST", "route": "/generate", "status": 200,
            "prompt_tokens": 2, "completion_tokens": 5, "finish_reason": "length",
        }  # fmt: skip


def test_a_tasks_line_names_it_and_an_errors_line_its_code(json_server: Any) -> None:
    answer = post(json_server, "/tasks/sentiment", {"text": "Good."})
    line = access_line(json_server, answer.headers["x-request-id"])
    assert (line["route"], line["task"], line["status"]) == ("/tasks/{name}", "sentiment", 200)
    assert line["prompt_tokens"] == answer.json()["usage"]["prompt_tokens"]
    answer = post(json_server, "/tasks/sentiment", {})
    line = access_line(json_server, answer.headers["x-request-id"])
    assert (line["task"], line["status"], line["error"]) == ("sentiment", 422, "validation_error")


def test_a_caller_that_left_is_in_the_log(json_server: Any) -> None:
    for is_stream, status in ((False, 499), (True, 200)):
        body = {"prompt": "On and on", "max_tokens": 1000, "ignore_eos": True, "stream": is_stream, "logprobs": 5}
        request_id = f"left-{is_stream}"
        connection = json_server.start_request("/generate", body, **{"X-Request-Id": request_id})
        json_server.wait_until(lambda health: health["engine"]["num_running"] == 1)
        if is_stream:
            connection.recv(1)  # its status has been sent
        connection.close()
        line = access_line(json_server, request_id)
        assert line["status"] == status
        assert line["finish_reason"] == "abort"
        assert line["completion_tokens"] < 1000


@pytest.mark.parametrize("given", ["", "with space", "a" * 129, "über", '"quoted"', "a;b", "<script>"])
def test_an_id_that_is_not_harmless_is_replaced(json_server: Any, given: str) -> None:
    answer = json_server.http.get("/health/live", headers={b"X-Request-Id": given.encode("utf-8")})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_a_header_with_terminal_codes_is_refused_or_replaced(json_server: Any) -> None:
    connection = json_server.start_request("/tokenize", {"prompt": "a"}, **{"X-Request-Id": "\x1b[31mred"})
    answer = connection.recv(4096)
    connection.close()
    assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400"))
    assert b"\x1b" not in answer


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("my password", None),
        ("fe80::1%secret", "fe80::1"),
    ],
)
def test_of_a_forwarded_address_nothing_else_is_logged(json_server: Any, forwarded: str, client: str | None) -> None:
    """As by a proxy on this machine, which is believed."""
    answer = post(json_server, "/generate", {"prompt": "a", "max_tokens": 1}, **{"X-Forwarded-For": forwarded})
    assert access_line(json_server, answer.headers["x-request-id"]).get("client") == client


def test_errors_of_the_framework_have_an_id_too(json_server: Any) -> None:
    for answer in (json_server.http.get("/nothing"), json_server.http.delete("/generate")):
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def send_everywhere(server: Any, text: str) -> None:
    post(server, "/generate", {"prompt": text, "max_tokens": 2})
    post(server, "/generate", {"prompt": text, "max_tokens": -1, text: text})
    post(server, "/tasks/translate", {"text": text, "source": text, "max_tokens": 2})
    post(server, "/tasks/translate", {"text": text, text: text})
    post(server, "/tasks/" + quote(text, safe=""), {"text": text})
    post(server, "/v1/completions", {"model": text, "prompt": text})
    post(server, "/v1/completions", {"prompt": text, "stop": text, "user": text, "max_tokens": 2})
    post(server, "/v1/chat/completions", {"messages": [{"role": "user", "content": text}], "max_tokens": 2})
    post(server, "/score", {"text": text})
    post(server, "/tokenize", {"prompt": text})
    server.http.get("/health", headers={b"User-Agent": b"Mozilla"})


def test_no_text_of_a_request_is_logged(json_server: Any) -> None:
    send_everywhere(json_server, "confidential")
    json_server.wait_until_idle()
    log = json_server.log.read_text()
    assert log.count("/v1/completions") >= 2
    assert "confidential" not in log


def test_every_line_is_json_of_either_process(json_server: Any) -> None:
    os.kill(json_server.engine_pid(), signal.SIGKILL)
    json_server.wait_until(lambda health: health["engine_restarts"] == 1 and health["status"] == "ready")
    answer = post(json_server, "/" + quote(FORGED, safe=""), {})
    assert "forged" in access_line(json_server, answer.headers["x-request-id"])["path"]
    lines = json_lines(json_server.log)
    assert {line["process"] for line in lines} == {"server", "engine"}
    assert {line["level"] for line in lines} <= {"info", "warning", "error"}
    assert "forged" not in {line["message"] for line in lines}
    assert b"\x1b" not in json_server.log.read_bytes()


def test_a_text_line_cannot_be_forged(text_server: Any) -> None:
    send_everywhere(text_server, FORGED)
    post(text_server, "/" + quote(FORGED, safe=""), {})
    text_server.wait_until_idle()
    log = text_server.log.read_bytes()
    assert b"forged\\u001b[31m" in log  # --log-prompts: it is there, as an escape
    assert b"\x1b" not in log
    assert b"\r" not in log
    for line in log.decode().split("\n"):
        assert "\u202e" not in line
        assert "\u2028" not in line
        assert not line.startswith("2026-01-01")
    ours = re.compile(rb"20\d\d-\d\d-\d\dT\S+Z (INFO|WARNING|ERROR) (server|engine): |  \||Zeroshot |  http://|$")
    assert [line for line in log.split(b"\n") if not ours.match(line)] == []


def test_polling_is_not_in_the_log(text_server: Any) -> None:
    text_server.health()
    text_server.metrics()
    log = text_server.log.read_text()
    assert "route=/health" not in log
    assert "route=/metrics" not in log
