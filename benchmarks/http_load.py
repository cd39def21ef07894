"""Concurrent requests to `/generate`, made for little of the machine's time: the cores are the server's.

httpx took more of them for a stream's token than the server did.
"""

import asyncio
import json
import time
from asyncio import Future, Transport
from typing import Any, cast
from urllib.parse import urlsplit

import httptools


async def seconds_for(url: str, bodies: list[dict[str, Any]]) -> float:
    """Wall time from the first request sent to the last answer received, all of them at once.

    Raises RuntimeError for an answer that is an error, ends early, or has not `max_tokens` tokens.
    """
    start = time.perf_counter()
    await asyncio.gather(*(_post(url, body) for body in bodies))
    return time.perf_counter() - start


async def _post(url: str, body: dict[str, Any]) -> None:
    address, content = urlsplit(url), json.dumps(body).encode()
    head = f"POST /generate HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
    request = b"%sContent-Length: %d\r\n\r\n%s" % (head.encode(), len(content), content)
    loop = asyncio.get_running_loop()
    answer: Future[bytes] = loop.create_future()
    await loop.create_connection(lambda: _Exchange(request, answer), address.hostname, address.port)
    received = await answer
    if body.get("stream"):
        received = received.split(b"\n\n")[-3].removeprefix(b"data: ")  # [DONE] and nothing follow
    if json.loads(received).get("usage", {}).get("completion_tokens") != body["max_tokens"]:
        raise RuntimeError(f"asked for {body['max_tokens']} tokens, got {received.decode()[:500]}")


class _Exchange(asyncio.Protocol):
    """A connection with one request. The answer is looked at when all of it has come."""

    def __init__(self, request: bytes, answer: "Future[bytes]") -> None:
        self._request, self._answer = request, answer
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(RuntimeError(f"the answer ended early: {exc}"))

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        received, status = b"".join(self._pieces), self._parser.get_status_code()
        if status == 200:
            self._answer.set_result(received)
        else:
            self._answer.set_exception(RuntimeError(f"answered with {status}: {received.decode()[:500]}"))
        self._transport.close()
