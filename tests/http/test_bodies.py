"""Bodies that are large, slow, late or full of mistakes: each is refused or read while others' requests go on."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Any

import psutil
import pytest

from tests.support.raw_http import connect, exchange, post_raw, read_answer, send
from tests.support.server import Server, run_server

StartServer = Callable[..., AbstractContextManager[Any]]


MANY = 500_000
MANY_NAMES = ",".join(f'"{number:x}":""' for number in range(300_000))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/detokenize", '{"tokens":[' + "-1," * MANY + "-1]}"),
        ("/generate", '{"prompt":"a","stop":[' + '"",' * MANY + '""]}'),
        ("/generate", '{"prompt":"a","logit_bias":{' + MANY_NAMES + "}}"),
        ("/generate", '{"prompt":"a",' + MANY_NAMES + "}"),
        ("/generate", '{"prompt":[' + "[1]," * 200_000 + "[1]]}"),
        ("/v1/completions", '{"prompt":"a",' + MANY_NAMES + "}"),
        ("/tasks/translate", '{"text":"a",' + MANY_NAMES + "}"),
        ("/tasks/translate/batch", '{"inputs":[{}],' + MANY_NAMES + "}"),
        ("/score", '{"token_ids":[' + "[1]," * (MANY // 2) + "[1]]}"),
        ("/score", '{"text":[' + '"",' * MANY + '""]}'),
        ("/generate", '{"prompt":"a","structured_outputs":{"json":{"a":[' + "[]," * (MANY // 2) + "[]]}}}"),
    ],
    ids=lambda value: value[:40],
)
def test_a_body_of_many_mistakes_is_refused_at_the_first(server: Any, path: str, body: str) -> None:
    """It is read while nothing else moves: an error for each took up to 7 s."""
    started = time.monotonic()
    response = server.http.post(path, content=body, headers={"content-type": "application/json"})
    assert time.monotonic() - started < 3, "an error for each mistake takes 5 s and more"
    assert response.status_code in (400, 422)
    error = response.json()["error"]
    assert "at most" in error["message"] or error.get("field") == "tokens.0"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", '{"prompt":"a","x":[' + "[]," * 300_000 + "[]]}"),
        ("/v1/completions", '{"prompt":"a","max_tokens":1,"x":[' + '{"a":[]},' * 200_000 + "{}]}"),
        ("/v1/chat/completions", '{"messages":[' + "{}," * 300_000 + "{}]}"),
        ("/tasks/translate", '{"text":"' + "," * 600_000 + '"}'),
        ("/detokenize", '{"tokens":[' + "1," * 600_000 + "1]}"),
    ],
    ids=lambda value: value[:40],
)
def test_a_body_of_more_values_than_are_read(server: Any, path: str, body: str) -> None:
    """They would be made into objects while nothing else moves."""
    response = server.http.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 413, response.text
    error = response.json()["error"]
    assert error["code"] == "request_too_large"
    assert "at most 524288" in error["message"]
    assert server.generate(prompt="next", max_tokens=1)["choices"]


@pytest.mark.parametrize("path", ["/generate", "/nowhere"])
@pytest.mark.parametrize("piece", [b"X-A: b\r\n" * 8192, b"b" * 2**16], ids=["many", "one"])
def test_trailers_without_end(own_server: Any, path: str, piece: bytes) -> None:
    """They come after a body, which may have been answered before: neither its size nor its time is watched then.

    First on this server: memory that another body has had and left would hide what these take.
    """
    with connect(own_server.url) as connection:
        before = psutil.Process(own_server.process.pid).memory_info().rss
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        send(connection, [b"2\r\n{}\r\n0\r\nX-A: b\r\nX-B: ", *[piece] * 500])
        received = b""
        with suppress(ConnectionResetError):
            while more := connection.recv(2**16):
                received += more
        assert psutil.Process(own_server.process.pid).memory_info().rss - before < 50 * 2**20
        assert own_server.http.get("/health/live").status_code == 200


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"], ids=["not ended", "ended"])
def test_a_head_that_is_too_large_is_called_one(own_server: Any, end: bytes) -> None:
    with connect(own_server.url) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 33_000 + end)
        answer = read_answer(connection)
    assert answer.status == 431
    assert json.loads(answer.body)["error"]["message"] == "The request's head is larger than 32768 bytes."


def test_short_trailers_are_no_headers(own_server: Any) -> None:
    body = b'{"prompt":"a","max_tokens":1}'
    head = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    chunks = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nX-A: b\r\n\r\n" % (len(body), body)
    with connect(own_server.url) as connection:
        for _ in range(2):
            connection.sendall(head + chunks)
            assert read_answer(connection).status == 200


def share_of_longest_wait(server: Any, path: str, body: dict[str, Any]) -> tuple[float, Any]:
    """For a plain answer meanwhile, as a share of the time that this one takes; and this one's answer."""
    with ThreadPoolExecutor(1) as pool:
        begun = time.monotonic()
        answer = pool.submit(server.http.post, path, json=body)
        waits_s = []
        while not answer.done():
            started = time.monotonic()
            server.http.get("/health/live")
            waits_s.append(time.monotonic() - started)
    return max(waits_s) / (time.monotonic() - begun), answer.result()


def test_the_texts_of_many_tokens_stop_nobody(own_server: Any) -> None:
    body = {"prompt": "\U00012345" * 2**18, "return_token_strs": True}
    share, tokenized = share_of_longest_wait(own_server, "/tokenize", body)
    assert len(tokenized.json()["token_strs"]) == 4 * 2**18
    assert share < 0.5


@pytest.mark.parametrize("path", ["/generate", "/v1/completions"])
def test_choices_of_many_tokens_stop_nobody(own_server: Any, path: str) -> None:
    text = "\U00012345" * (2**17 - len(path))  # none that has been tokenised for the other path
    body = {"prompt": "a", "structured_outputs": {"choice": [text]}}
    share, refused = share_of_longest_wait(own_server, path, body)
    assert refused.status_code == 400
    assert "context_length_exceeded" in refused.text
    assert share < 0.5


def test_a_batch_of_many_mistakes_stops_nobody(own_server: Any) -> None:
    item = {"text": "a"} | {f"x{number}": [] for number in range(1000)}
    share, answer = share_of_longest_wait(own_server, "/tasks/translate/batch", {"inputs": [item] * 250})
    assert answer.status_code == 200
    assert len(answer.json()["results"]) == 250
    assert share < 0.4


def test_short_texts_do_not_wait_for_the_long_ones_of_others(own_server: Any) -> None:
    long_text = {"prompt": "\U00012345" * 2**18}
    started = time.monotonic()
    own_server.http.post("/tokenize", json=long_text)
    one_s = time.monotonic() - started
    clients = [post_raw(own_server, "/tokenize", long_text) for _ in range(16)]
    time.sleep(one_s)
    started = time.monotonic()
    assert own_server.http.post("/tokenize", json={"prompt": "a"}).json()["count"] == 1
    waited_s = time.monotonic() - started
    for client in clients:
        client.close()
    assert waited_s < 3 * one_s, "those of the others take 16 times as long as one"


@pytest.fixture(scope="module")
def impatient_server(gpt2_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("impatient")
    with run_server(gpt2_checkpoint.folder, folder, ZEROSHOT_RECEIVE_TIMEOUT_S="1") as running:
        yield running


def test_a_body_that_comes_too_slowly(impatient_server: Server) -> None:
    head = "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    for path, get_code in (
        ("/generate", lambda body: body["error"]["code"]),
        ("/v1/completions", lambda body: body["error"]["code"]),
        ("/tasks/complete", lambda body: body["error"]["code"]),
    ):
        answer = exchange(impatient_server.url, head.format(path).encode(), *[b"{"] * 30, pause_s=0.1)
        assert answer.status == 408, path
        assert get_code(answer.json()) == "request_timeout"
        assert answer.headers["connection"] == "close"
    slow_head = exchange(
        impatient_server.url, *[bytes([byte]) for byte in b"GET /health HTTP/1.1\r\nHost: localhost"], pause_s=0.1
    )
    assert (slow_head.status, slow_head.json()["error"]["code"]) == (408, "request_timeout")
    with connect(impatient_server.url, timeout_s=10) as silent:
        started = time.monotonic()
        assert silent.recv(1) == b"", "a connection that says nothing is closed"
        assert time.monotonic() - started < 8
    with connect(impatient_server.url) as kept:
        kept.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(kept).status == 200
        time.sleep(1.5)  # idle between two requests is not slow
        kept.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(kept).status == 200
    impatient_server.wait_until_idle()


LARGE = 2**17
PADDED = json.dumps({"prompt": "a", "max_tokens": 1}).ljust(LARGE - 1)


def post_padded(server: Any, path: str = "/generate", **headers: str) -> Any:
    return server.http.post(path, content=PADDED, headers={"content-type": "application/json"} | headers)


def fill_with_uploads(stack: ExitStack, server: Any, **headers: str) -> None:
    """Bodies of which all but the last byte has been sent, until there is no room for another."""
    lines = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": str(LARGE)} | headers
    head = "POST /generate HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    num_refused = 0
    for number in range(200):
        connection = stack.enter_context(connect(server.url))
        send(connection, [head.encode() + b"\r\n" + b" " * (LARGE - 1)])
        if number >= 60:
            # An upload may have been refused because of this one, so that then there is room again.
            num_refused = num_refused + 1 if post_padded(server, **headers).status_code == 429 else 0
            if num_refused == 3:
                return
    raise AssertionError("there is room for any number")


def wait_for_room(server: Any, **headers: str) -> None:
    deadline = time.monotonic() + 20
    while post_padded(server, **headers).status_code != 200:
        assert time.monotonic() < deadline, "the room of those that have left is still taken"
        time.sleep(0.05)


def test_large_bodies_are_bounded_in_all(start_server: StartServer) -> None:
    with start_server(ZEROSHOT_MAX_BODY_BYTES=str(LARGE)) as server:
        assert post_padded(server).status_code == 200
        with ExitStack() as stack:
            fill_with_uploads(stack, server)
            for path in ("/generate", "/v1/completions", "/", "/tasks/complete"):
                refused = post_padded(server, path)
                assert (refused.status_code, refused.headers["retry-after"]) == (429, "5"), path
                assert "large bodies" in refused.text
            assert server.generate(prompt="small", max_tokens=1)["choices"]
            assert server.http.post("/tokenize", json={"prompt": "a " * 2**14}).status_code == 200
        wait_for_room(server)
        server.wait_until_idle()


def test_one_key_has_half_of_the_room_for_large_bodies(start_server: StartServer) -> None:
    keys = ["a" * 32, "b" * 32]
    first, second = ({"Authorization": f"Bearer {key}"} for key in keys)
    with start_server(ZEROSHOT_MAX_BODY_BYTES=str(LARGE), ZEROSHOT_API_KEYS=",".join(keys)) as server:
        with ExitStack() as stack:
            fill_with_uploads(stack, server, **first)
            assert post_padded(server, **second).status_code == 200
        wait_for_room(server, **first)


def test_a_body_that_was_answered_before_it_came_has_its_time_too(impatient_server: Server) -> None:
    with connect(impatient_server.url, timeout_s=10) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
        assert read_answer(connection).status == 404
        connection.sendall(b"a")
        assert connection.recv(1) == b"", "it is closed"
    with connect(impatient_server.url, timeout_s=10) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n")
        assert read_answer(connection).status == 404
        connection.sendall(b"a")
        connection.sendall(b"a")
        time.sleep(1.5)
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(connection).status == 200, "it came in time"
