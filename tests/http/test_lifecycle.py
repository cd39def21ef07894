"""Clients that leave, engines that die or hang, a queue that is full, a server that is told to stop."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from http.client import HTTPConnection
from typing import Any

import httpx
import psutil
import pytest

from tests.support.raw_http import connect, read_answer, read_one, send

LONG = {"prompt": "On and on", "max_tokens": 1000, "ignore_eos": True, "logprobs": 5}
"""Seconds of work even for a tiny model."""
StartServer = Callable[..., AbstractContextManager[Any]]


def raw_request(server: Any, body: dict[str, Any]) -> socket.socket:
    """A request on a bare socket, which the test can drop whenever it likes."""
    content = json.dumps(body).encode()
    headers = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
    connection.sendall(b"POST /generate HTTP/1.1\r\n" + headers.encode() + content)
    return connection


def engine_pid(server: Any) -> int:
    children = psutil.Process(server.process.pid).children()
    return next(child.pid for child in children if "zeroshot.engine.process" in child.cmdline())


def post_in_background(pool: ThreadPoolExecutor, server: Any, body: dict[str, Any]) -> Future[httpx.Response]:
    return pool.submit(httpx.post, f"{server.url}/generate", json=body, timeout=60)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("num_clients", [1, 20])
def test_a_client_that_leaves_frees_its_blocks(server: Any, is_stream: bool, num_clients: int) -> None:
    server.wait_until_idle()
    tokens_before = server.health()["engine"]["generation_tokens_total"]
    connections = [raw_request(server, LONG | {"stream": is_stream, "seed": i}) for i in range(num_clients)]
    server.wait_until(lambda health: health["engine"]["num_running"] == num_clients)
    for connection in connections:
        connection.close()
    health = server.wait_until_idle()
    # It stopped because they left, not because they were done.
    assert health["engine"]["generation_tokens_total"] - tokens_before < 1000 * num_clients


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_client_that_leaves_with_its_next_request_already_sent(own_server: Any, is_stream: bool) -> None:
    """The one that waits for its turn is not the one to be told that the client has gone."""
    own_server.wait_until_idle()
    tokens_before = own_server.health()["engine"]["generation_tokens_total"]
    connection = raw_request(own_server, LONG | {"stream": is_stream})
    own_server.wait_until(lambda health: health["engine"]["num_running"] == 1)
    connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    time.sleep(0.1)
    connection.close()
    health = own_server.wait_until_idle()
    assert health["engine"]["generation_tokens_total"] - tokens_before < 1000
    assert "Traceback" not in own_server.log.read_text()


def test_a_client_that_leaves_while_it_waits_in_the_queue(start_server: StartServer) -> None:
    with start_server("--max-num-seqs", "2") as server:
        server.wait_until_warm()
        running = [raw_request(server, LONG) for _ in range(2)]
        waiting = [raw_request(server, LONG | {"stream": is_stream}) for is_stream in (False, True, True)]
        server.wait_until(lambda health: health["engine"]["num_waiting"] == 3)
        for connection in waiting:
            connection.close()
        server.wait_until(lambda health: health["engine"]["num_waiting"] == 0 and health["engine"]["num_running"] == 2)
        for connection in running:
            connection.close()
        server.wait_until_idle()


def test_killed_engine_answers_503_and_recovers(own_server: Any) -> None:
    expected = own_server.generate(prompt="before", max_tokens=5, temperature=0)["choices"]
    restarts_before = own_server.health()["engine_restarts"]
    with ThreadPoolExecutor(3) as pool:
        plain = post_in_background(pool, own_server, LONG)
        stream = post_in_background(pool, own_server, LONG | {"stream": True})
        own_server.wait_until(lambda health: health["engine"]["num_running"] == 2)
        os.kill(engine_pid(own_server), signal.SIGKILL)
        response = plain.result()
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "engine_restarting"
        assert response.headers["retry-after"]
        lines = [line for line in stream.result().text.split("\n") if line]
    assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "engine_restarting"
    assert lines[-1] == "data: [DONE]"
    health = own_server.wait_until(lambda health: health["status"] == "ready")
    assert health["engine_restarts"] == restarts_before + 1
    assert own_server.generate(prompt="before", max_tokens=5, temperature=0)["choices"] == expected


def test_ready_tells_the_truth_while_the_engine_is_down(own_server: Any) -> None:
    os.kill(engine_pid(own_server), signal.SIGKILL)
    own_server.wait_until(lambda health: health["status"] == "restarting")
    assert own_server.http.get("/health/ready").status_code == 503
    assert own_server.http.get("/health/live").status_code == 200
    refused = own_server.http.post("/generate", json={"prompt": "a"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_restarting")
    own_server.wait_until(lambda health: health["status"] == "ready")


def test_hung_engine_is_replaced(start_server: StartServer) -> None:
    with start_server(ZEROSHOT_ENGINE_HANG_TIMEOUT_S="2") as server, ThreadPoolExecutor(1) as pool:
        request = post_in_background(pool, server, LONG)
        server.wait_until(lambda health: health["engine"]["num_running"] == 1)
        os.kill(engine_pid(server), signal.SIGSTOP)
        assert request.result().json()["error"]["code"] == "engine_restarting"
        server.wait_until(lambda health: health["status"] == "ready")
        assert server.generate(prompt="after", max_tokens=3)["choices"]


def test_a_server_that_was_stopped_itself_does_not_take_the_engine_for_hung(start_server: StartServer) -> None:
    with start_server(ZEROSHOT_ENGINE_HANG_TIMEOUT_S="1") as server, ThreadPoolExecutor(1) as pool:
        request = post_in_background(pool, server, LONG)
        server.wait_until(lambda health: health["engine"]["num_running"] == 1)
        processes = [server.process.pid, engine_pid(server)]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in processes:
                os.kill(pid, number)
            time.sleep(2)
        assert request.result().status_code == 200
        assert server.health()["engine_restarts"] == 0


def test_a_full_queue_answers_429_and_says_when_to_retry(start_server: StartServer) -> None:
    with start_server(ZEROSHOT_MAX_QUEUED_SEQS="4") as server:
        server.wait_until_warm()
        connections = [raw_request(server, LONG | {"n": 2}) for _ in range(2)]
        server.wait_until(lambda health: health["engine"]["num_running"] == 4)
        refused = server.http.post("/generate", json={"prompt": "a"})
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "overloaded"
        assert 1 <= int(refused.headers["retry-after"]) <= 120
        for connection in connections:
            connection.close()
        server.wait_until_idle()
        assert server.http.post("/generate", json={"prompt": "a", "max_tokens": 2}).status_code == 200


def test_the_engine_ends_when_its_server_is_killed(fresh_server: Any) -> None:
    engine = psutil.Process(engine_pid(fresh_server))
    fresh_server.process.kill()
    engine.wait(timeout=10)
    assert not engine.is_running()


def test_idle_means_idle(own_server: Any) -> None:
    own_server.generate(prompt="wake up", max_tokens=5)
    own_server.wait_until_idle()
    processes = [psutil.Process(own_server.process.pid), psutil.Process(engine_pid(own_server))]
    before = sum(sum(process.cpu_times()[:2]) for process in processes)
    time.sleep(2)
    used_s = sum(sum(process.cpu_times()[:2]) for process in processes) - before
    assert used_s / 2 < 0.1  # share of one core: timers, no busy loop


@pytest.mark.parametrize("flag", ["--model", "--speculative-model"])
def test_startup_errors_are_one_readable_line(tmp_path: Any, flag: str) -> None:
    command = [sys.executable, "-m", "zeroshot", "serve", flag, str(tmp_path / "nothing" / "here" / "at all")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "Error:" in result.stderr
    assert "Traceback" not in result.stderr


def test_what_only_the_engine_can_refuse_ends_the_server() -> None:
    """Another engine would end the same way, again and again."""
    command = [sys.executable, "-m", "zeroshot", "serve", "--port", "0", "--device", "cpu", "--kv-dtype", "fp8"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "kv_dtype fp8 is for GPUs" in result.stderr + result.stdout
    assert "Traceback" not in result.stderr + result.stdout


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/health"])
def test_monitors_may_ask_with_head(server: Any, path: str) -> None:
    answer = server.http.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "application/json"


def test_an_idle_connection_can_be_used_again(server: Any) -> None:
    """uvicorn's own limit is 5 s, where a client's next request and the close often cross."""
    connection = HTTPConnection("127.0.0.1", int(server.url.rsplit(":", 1)[1]), timeout=10)
    for pause_s in (0, 6.5):
        time.sleep(pause_s)
        connection.request("GET", "/health/live")
        first_socket = connection.sock
        response = connection.getresponse()
        assert response.status == 200
        assert "close" not in response.getheader("connection", "")
        response.read()
        assert connection.sock is first_socket is not None
    connection.close()


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_an_offer_to_upgrade_changes_nothing(own_server: Any, protocol: str) -> None:
    """Java's client makes it with its first request, whose body was lost."""
    body = b'{"prompt":"a","max_tokens":1,"temperature":0}'
    offer = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABk\r\n"
    head = f"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{offer}"
    whole = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    get = f"GET /health/live HTTP/1.1\r\nHost: localhost\r\n{offer}\r\n".encode()
    expected = own_server.generate(prompt="a", max_tokens=1, temperature=0)["choices"]
    with connect(own_server.url) as connection:
        for pieces in ([whole], [chunked], [whole[:200], whole[200:-5], whole[-5:]], [bytes([byte]) for byte in whole]):
            send(connection, pieces, pause_s=0.001)
            assert read_answer(connection).json()["choices"] == expected
        connection.sendall(get + whole + get)
        with connection.makefile("rb") as answers:
            assert [read_one(answers).status for _ in range(3)] == [200, 200, 200]
    assert "WebSocket" not in own_server.log.read_text()


@pytest.mark.parametrize(
    "head",
    [
        "GET /health/live HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
        "GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\n",
    ],
)
def test_an_offer_to_upgrade_on_a_connection_that_closes(own_server: Any, head: str) -> None:
    with connect(own_server.url, timeout_s=10) as connection:
        connection.sendall(f"{head}\r\n".encode())
        assert read_answer(connection).status == 200


def test_more_requests_ahead_of_their_answers_than_any_client_sends(own_server: Any) -> None:
    """Each would wait in memory."""
    with connect(own_server.url) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
        with connection.makefile("rb") as answers:
            assert [read_one(answers).status for _ in range(20)] == [200] * 20
    with connect(own_server.url) as connection:
        with contextlib.suppress(ConnectionError):  # cut off while it sends
            connection.sendall(b"GET /health HTTP/1.1\r\n\r\n" * 200_000)
        with contextlib.suppress(ConnectionError):
            while connection.recv(2**16):
                pass
    assert "ahead of their answers" in own_server.log.read_text()
    assert own_server.http.get("/health/live").status_code == 200


def test_a_client_that_reads_nothing_keeps_no_room_once_the_engine_has_done_with_it(start_server: StartServer) -> None:
    def status() -> int:
        return int(server.http.post("/generate", json={"prompt": "a", "max_tokens": 1}).status_code)

    with start_server(ZEROSHOT_MAX_QUEUED_SEQS="6") as server:
        server.wait_until_warm()
        slow = raw_request(server, LONG | {"n": 6, "stream": True, "logprobs": 20})
        server.wait_until(lambda health: health["engine"]["num_running"] == 6)
        assert status() == 429
        server.wait_until(lambda health: health["engine"]["num_running"] == 0)
        server.wait_until(lambda _: status() == 200, timeout_s=20)  # long before the client is cut off
        slow.close()


def test_slow_reader_does_not_stop_others(server: Any) -> None:
    slow = raw_request(server, LONG | {"stream": True, "logprobs": 20})
    server.wait_until(lambda health: health["engine"]["num_running"] >= 1)
    done = threading.Event()

    def quick() -> None:
        server.generate(prompt="quick", max_tokens=5)
        done.set()

    threading.Thread(target=quick, daemon=True).start()
    assert done.wait(timeout=30)
    slow.close()
    server.wait_until_idle()
