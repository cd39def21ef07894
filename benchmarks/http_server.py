"""A server process to measure, and a load of concurrent requests on it."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx


@contextmanager
def running_server(model: Path, *arguments: str, **environment: str) -> Iterator[str]:
    """`zeroshot serve` on a free port, ready, with settings as flags or ZEROSHOT_… variables. Yields its URL."""
    with server_process(model, *arguments, **environment) as (url, _):
        yield url


@contextmanager
def server_process(
    model: Path, *arguments: str, log: Path | None = None, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The same, with its process. `log`: a file for what it writes; without one that is thrown away."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "zeroshot", "serve", "--model", str(model), "--port", str(port), *arguments]
    with open(os.devnull if log is None else log, "wb") as output:  # noqa: PTH123 - devnull is no file to Path
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | environment)
    try:
        _wait_until_ready(url, process)
        yield url, process
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(3000):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with exit code {process.returncode}")
        try:
            if httpx.get(f"{url}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError("the server did not become ready")


async def seconds_for(url: str, bodies: list[dict[str, Any]]) -> float:
    """Wall time from the first request sent to the last answer received, all of them at once."""
    limits = httpx.Limits(max_connections=len(bodies))
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        start = time.perf_counter()
        await asyncio.gather(*(_post(client, body) for body in bodies))
        return time.perf_counter() - start


async def _post(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    if not body.get("stream"):
        answer = (await client.post("/generate", json=body)).json()
    else:
        async with client.stream("POST", "/generate", json=body) as response:  # as it comes: the cores are the server's
            events = b"".join([piece async for piece in response.aiter_raw()]).split(b"\n\n")
        answer = json.loads(events[-3].removeprefix(b"data: "))  # [DONE] and nothing follow
    if answer.get("usage", {}).get("completion_tokens") != body["max_tokens"]:
        raise RuntimeError(f"asked for {body['max_tokens']} tokens, got {str(answer)[:500]}")
