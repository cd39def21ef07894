"""A server that is full, fails, or is something else."""

import asyncio

import httpx
import pytest

from zeroshot.errors import InvalidRequest, ZeroshotError
from zeroshot.evaluation.remote import HttpBackend, over_http


def ask(*responses: httpx.Response) -> dict:
    remaining = list(responses)

    async def run() -> dict:
        transport = httpx.MockTransport(lambda request: remaining.pop(0))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await HttpBackend(http, "m").task("answer", {"question": "?"})

    return asyncio.run(run())


def test_a_full_server_is_asked_again():
    full = httpx.Response(429, headers={"retry-after": "0"}, json={"error": {"message": "full"}})
    lost = httpx.Response(503, headers={"retry-after": "0"}, json={"error": {"message": "restarting"}})
    assert ask(full, lost, full, httpx.Response(200, json={"output": "x"})) == {"output": "x"}


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (httpx.Response(404, json={"error": {"message": "There is no task"}}), "There is no task"),
        (httpx.Response(502, text="<html>bad gateway"), "502"),
    ],
)
def test_an_error_says_what_the_server_said(response, message):
    with pytest.raises(ZeroshotError, match=message):
        ask(response)


def test_nobody_there():
    async def run() -> None:
        async with over_http("http://127.0.0.1:9"):
            pass

    with pytest.raises(InvalidRequest, match="No server answers"):
        asyncio.run(run())
