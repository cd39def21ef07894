"""A real server process on a real socket, for the suites that talk HTTP."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families


class Server:
    """`url` to talk to; `health()` for what the engine says of itself."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url, self.process, self.log = url, process, log
        self.http = httpx.Client(base_url=url, timeout=60)

    def health(self) -> dict[str, Any]:
        return self.http.get("/health").json()

    def generate(self, **body: Any) -> dict[str, Any]:
        response = self.http.post("/generate", json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def metrics(self) -> dict[tuple[str, ...], float]:
        """GET /metrics, read by prometheus_client: {(name, label values in the order of label names): value}."""
        response = self.http.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
        }

    def engine_pid(self) -> int:
        children = psutil.Process(self.process.pid).children()
        return next(child.pid for child in children if "zeroshot.engine.process" in child.cmdline())

    def start_request(self, path: str, body: dict[str, Any], **headers: str) -> socket.socket:
        """A request on a bare socket, which the test can drop whenever it likes."""
        content = json.dumps(body).encode()
        lines = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": str(len(content))} | headers
        head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        connection = socket.create_connection(("127.0.0.1", int(self.url.rsplit(":", 1)[1])))
        connection.sendall(head.encode() + b"\r\n" + content)
        return connection

    def wait_until(self, condition: Callable[[dict[str, Any]], bool], timeout_s: float = 60) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            health = self.health()
            if condition(health):
                return health
            time.sleep(0.02)
        raise AssertionError(f"not in {timeout_s} s: {health}")

    def wait_until_warm(self) -> None:
        """Until the bundled tasks' prompts have been prefilled: for tests that count what runs and waits."""
        self.wait_until(lambda health: health["engine"]["prompt_tokens_total"] > 100)
        self.wait_until_idle()

    def wait_until_idle(self) -> dict[str, Any]:
        """Until nothing runs or waits and every block is back."""
        return self.wait_until(
            lambda health: (
                health["status"] == "ready"
                and health["engine"]["num_running"] == health["engine"]["num_waiting"] == 0
                and health["engine"]["num_free_kv_blocks"] == health["engine"]["num_kv_blocks"]
            )
        )


@contextmanager
def run_server(model: Path, folder: Path, *arguments: str, **environment: str) -> Iterator[Server]:
    """Serve the checkpoint `model` until the block ends; `folder` is for the log."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "server.log"
    command = [sys.executable, "-m", "zeroshot", "serve", "--model", str(model), "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--threads", "1", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        for _ in range(1800):
            assert process.poll() is None, log.read_text()
            try:
                if server.http.get("/health/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        else:
            raise AssertionError(f"not ready: {log.read_text()}")
        yield server
    finally:
        server.http.close()
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
