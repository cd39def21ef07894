"""What the soak does to the server and what it watches: engines killed and stopped; memory, threads, descriptors."""

import asyncio
import os
import signal
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

_SAMPLE_INTERVAL_S = 0.5
_MIB = 2**20


def engine_of(server_pid: int) -> psutil.Process | None:
    """None while there is none."""
    try:
        for child in psutil.Process(server_pid).children():
            if "zeroshot.engine.process" in child.cmdline():
                return child
    except psutil.NoSuchProcess:
        pass
    return None


async def wait_until_ready(http: httpx.AsyncClient, timeout_s: float = 300.0) -> None:
    deadline = time.monotonic() + timeout_s
    while (await http.get("/health/ready")).status_code != 200:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not ready after {timeout_s:g} s")
        await asyncio.sleep(0.05)


async def wait_until_restarted(http: httpx.AsyncClient, num_restarts: int, timeout_s: float = 300.0) -> None:
    """Until there have been more restarts than that."""
    deadline = time.monotonic() + timeout_s
    while (await http.get("/health")).json()["engine_restarts"] <= num_restarts:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no restart in {timeout_s:g} s")
        await asyncio.sleep(0.02)


async def wait_until_idle(http: httpx.AsyncClient, timeout_s: float = 300.0) -> dict[str, Any]:
    """The engine's stats, once nothing has been running or waiting for a while. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    num_idle = 0
    while True:
        health = (await http.get("/health")).json()
        stats: dict[str, Any] = health["engine"]
        is_idle = health["status"] == "ready" and stats["num_running"] == stats["num_waiting"] == 0
        num_idle = num_idle + 1 if is_idle else 0
        if num_idle == 5:
            return stats
        if time.monotonic() > deadline:
            raise TimeoutError(f"not idle after {timeout_s:g} s: {health}")
        await asyncio.sleep(0.2)


async def inject_faults(
    http: httpx.AsyncClient, server_pid: int, interval_s: float, faults: list[dict[str, Any]]
) -> None:
    """Kill and stop engines by turns until cancelled. Adds one entry a fault; recovery is until ready again."""
    while True:
        await asyncio.sleep(interval_s)
        number = signal.SIGSTOP if len(faults) % 2 else signal.SIGKILL
        engine = engine_of(server_pid)
        if engine is None:
            continue
        num_restarts = (await http.get("/health")).json()["engine_restarts"]
        os.kill(engine.pid, number)
        started = time.monotonic()
        await wait_until_restarted(http, num_restarts)
        await wait_until_ready(http)
        faults.append({"signal": number.name, "recovered_s": round(time.monotonic() - started, 2)})


@dataclass(slots=True)
class Usage:
    """Of one process, over time."""

    rss_mib: list[float] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def sample(self, process: psutil.Process) -> None:
        try:
            with process.oneshot():
                values = process.memory_info().rss / _MIB, process.num_threads(), process.num_fds()
        except psutil.NoSuchProcess:
            return
        self.rss_mib.append(values[0])
        self.threads.append(values[1])
        self.descriptors.append(values[2])

    def quarters(self) -> dict[str, list[float]]:
        """The median of each quarter of the time: what leaks, grows."""
        return {
            name: [round(statistics.median(quarter), 1) for quarter in _quarters(values)]
            for name, values in (("rss_mib", self.rss_mib), ("threads", self.threads), ("fds", self.descriptors))
        }


def _quarters(values: list[Any]) -> list[list[Any]]:
    size = max(1, len(values) // 4)
    return [part for part in (values[size * number : size * (number + 1)] for number in range(4)) if part]


async def watch_usage(server_pid: int, server: Usage, engine: Usage) -> None:
    """The server's and its engines', until cancelled."""
    process = psutil.Process(server_pid)
    while True:
        server.sample(process)
        child = engine_of(server_pid)
        if child is not None:
            engine.sample(child)
        await asyncio.sleep(_SAMPLE_INTERVAL_S)


async def wait_until_unconnected(server_pid: int, timeout_s: float = 120.0) -> None:
    """Until the server has closed every connection. Raises TimeoutError.

    httpx forgets a connection whose request was cancelled while it was being made, and leaves it open: the server gives
    it up after its receive timeout.
    """
    deadline = time.monotonic() + timeout_s
    process = psutil.Process(server_pid)
    while any(connection.status != psutil.CONN_LISTEN for connection in process.net_connections("tcp")):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the server still has connections after {timeout_s:g} s")
        await asyncio.sleep(0.2)


async def at_rest(http: httpx.AsyncClient, server_pid: int) -> dict[str, Any]:
    """Threads and descriptors of both processes and memory of the server's, once idle and with no client connected."""
    await wait_until_idle(http)
    await wait_until_unconnected(server_pid)
    engine = engine_of(server_pid)
    usage: dict[str, Any] = {}
    for name, process in (("server", psutil.Process(server_pid)), ("engine", engine)):
        if process is not None:
            usage[name] = {
                "rss_mib": round(process.memory_info().rss / _MIB, 1),
                "threads": process.num_threads(),
                "fds": process.num_fds(),
            }
    return usage
