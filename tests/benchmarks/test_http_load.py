"""The load generator counts an answer only if it is whole and what was asked for."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cpu import random_prompts, request_body
from benchmarks.http_load import seconds_for
from benchmarks.http_server import running_server


@pytest.fixture(scope="module")
def url(tiny_checkpoint: Path) -> Iterator[str]:
    with running_server(tiny_checkpoint, "--threads", "1") as url:
        yield url


@pytest.mark.parametrize("is_stream", [False, True])
def test_whole_answers_are_waited_for(url: str, is_stream: bool) -> None:
    bodies = [request_body(prompt, 5, is_stream) for prompt in random_prompts(3, 8, seed=0)]
    assert asyncio.run(seconds_for(url, bodies)) > 0


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"temperature": -1}, "answered with 422: .*temperature"),
        ({"temperature": -1, "stream": True}, "answered with 422: .*temperature"),
        ({"n": 2}, "asked for 5 tokens, got .*10"),
    ],
)
def test_any_other_answer_is_an_error(url: str, changed: dict[str, Any], reason: str) -> None:
    good = request_body([1, 2, 3], 5, is_stream=False)
    with pytest.raises(RuntimeError, match=reason):
        asyncio.run(seconds_for(url, [good, good | changed]))


def test_an_answer_that_ends_early_is_an_error() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        writer.close()

    async def ask() -> None:
        with closing(await asyncio.start_server(hang_up, "127.0.0.1", 0)) as server:
            port = server.sockets[0].getsockname()[1]
            await seconds_for(f"http://127.0.0.1:{port}", [request_body([1], 5, is_stream=False)])

    with pytest.raises(RuntimeError, match="ended early"):
        asyncio.run(ask())
