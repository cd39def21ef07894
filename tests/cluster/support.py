"""The deployed server, seen from outside: its URL, and the processes that its engines are."""

import time

import httpx
import psutil

from tests.support.server import Server

REPLICA = "ray::ServeReplica:zeroshot:engine"
INGRESS = "ray::ServeReplica:zeroshot:ingress"
KV_BLOCKS = 4096
"""Of one engine with the demo model: 64 full contexts."""


class ClusterServer(Server):
    """`Server` without a process of its own: Ray's nodes are children of the test process, replicas of the nodes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=60)

    def replicas(self) -> list[psutil.Process]:
        """The processes that hold an EngineClient."""
        return [child for child in psutil.Process().children(recursive=True) if _command(child).startswith(REPLICA)]

    def ingresses(self) -> list[psutil.Process]:
        return [child for child in psutil.Process().children(recursive=True) if _command(child).startswith(INGRESS)]

    def engines(self) -> list[psutil.Process]:
        return [child for replica in self.replicas() for child in replica.children() if "engine" in _command(child)]

    def wait_for_engines(self, number: int, timeout_s: float = 90) -> None:
        """Until as many are there, and the ingress has heard of them: two have twice the blocks of one."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            health = self.http.get("/health")
            if health.status_code == 200 and health.json()["engine"]["num_kv_blocks"] == number * KV_BLOCKS:
                return
            time.sleep(0.2)
        raise AssertionError(f"not {number} engines in {timeout_s} s: {health.text}")


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
