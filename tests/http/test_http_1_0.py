"""Clients of HTTP/1.0, such as old proxies. Not through a cluster: there Serve's proxies speak to them."""

import json
from typing import Any

import pytest

from tests.support.raw_http import exchange


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
def test_a_client_of_http_1_0_gets_no_chunks(server: Any, connection: str) -> None:
    body: dict[str, Any] = {"prompt": "It was a dark night, and", "max_tokens": 5, "seed": 11}
    answers = []
    for is_stream in (False, True):
        content = json.dumps(body | {"stream": is_stream}).encode()
        head = f"POST /generate HTTP/1.0\r\nContent-Type: application/json\r\nConnection: {connection}\r\n"
        answer = exchange(server.url, f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        assert answer.status == 200
        assert "transfer-encoding" not in answer.headers
        assert answer.headers["connection"] == "close"
        answers.append(answer)
    plain, streamed = answers
    *events, done, rest = streamed.body.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    choices = [choice for event in events for choice in json.loads(event.removeprefix(b"data: "))["choices"]]
    assert "".join(choice["text"] for choice in choices) == plain.json()["choices"][0]["text"]
