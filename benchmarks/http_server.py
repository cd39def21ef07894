"""A server process to measure."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
