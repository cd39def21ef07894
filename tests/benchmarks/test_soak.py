"""A short soak: nothing lost, nothing wrong, nothing leaked, with the engine killed and stopped on the way."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.soak import leaks, markdown_table
from benchmarks.soak_faults import at_rest
from benchmarks.soak_traffic import is_same
from tests.support.server import run_server

ROOT = Path(__file__).parents[2]


def test_a_short_soak(tmp_path: Path) -> None:
    output = tmp_path / "soak.json"
    options = ["--minutes", "0.3", "--concurrency", "8", "--fault-interval-s", "5", "--recheck-share", "0.2"]
    command = [sys.executable, "-m", "benchmarks.soak", *options, "--output", str(output), "--log", str(tmp_path / "l")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert output.exists(), run.stderr
    result = json.loads(output.read_text())
    assert (result["lost"], result["failed"], result["wrong"], result["leaks"]) == (0, 0, 0, []), result["examples"]
    assert run.returncode == 0, run.stdout
    assert {fault["signal"] for fault in result["faults"]} == {"SIGKILL", "SIGSTOP"}
    assert result["requests"] > 50
    assert result["rechecked"] > 0
    left = sum(counts.get("left", 0) for counts in result["outcomes"].values())
    assert left > 0
    assert f"| {result['requests']:,} |" in markdown_table(result)


def test_at_rest_no_connection_of_a_client_is_counted(checkpoint: Callable[..., Any], tmp_path: Path) -> None:
    """httpx leaves one behind when a request is cancelled at the wrong moment; the server closes it in its own time."""

    async def fds(url: str, pid: int, num_open: int) -> int:
        opened = [socket.create_connection(("127.0.0.1", httpx.URL(url).port)) for _ in range(num_open)]
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=url, limits=limits) as http:
            found: int = (await at_rest(http, pid))["server"]["fds"]
        for connection in opened:
            connection.close()
        return found

    model = checkpoint(vocab_size=50257, n_positions=1024, n_embd=64, n_layer=2, n_head=4).folder
    with run_server(model, tmp_path, ZEROSHOT_RECEIVE_TIMEOUT_S="6") as server:
        server.http.close()
        alone = asyncio.run(fds(server.url, server.process.pid, 0))
        assert asyncio.run(fds(server.url, server.process.pid, 3)) == alone


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([("a", "stop")], [("a", "stop")], True),
        ([("a", "stop")], [("a", "length")], False),
        ([("a", "stop")], [], False),
        ([1.0, -20.0], [1.0005, -20.01], True),
        ([1.0], [1.01], False),
        ({"x": 1.0}, {"y": 1.0}, False),
        ("a", None, False),
    ],
)
def test_what_counts_as_the_same_answer(one: object, other: object, expected: bool) -> None:
    assert is_same(one, other) is expected


def resting(**server: int) -> dict[str, dict[str, int]]:
    return {"server": {"threads": 12, "fds": 26} | server, "engine": {"threads": 4, "fds": 17}}


@pytest.mark.parametrize(
    ("after", "free_blocks", "expected"),
    [
        (resting(), 8, []),
        (resting(threads=15), 8, []),  # the pools were full by the middle of the run
        (resting(threads=16), 8, ["1 threads of the server"]),
        (resting(fds=27), 8, ["1 fds of the server"]),
        (resting(), 6, ["2 KV blocks"]),
    ],
)
def test_what_counts_as_a_leak(after: dict[str, dict[str, int]], free_blocks: int, expected: list[str]) -> None:
    result = {
        "kv_blocks": {"total": 8, "free_at_end": free_blocks},
        "at_rest": {"before": resting(), "after": after},
        "quarters": {
            "server": {"threads": [13.0, 15.0, 15.0, 16.0], "fds": [30.0, 31.0, 30.0, 40.0]},
            "engine": {"threads": [4.0] * 4, "fds": [17.0] * 4},
        },
    }
    assert leaks(result) == expected
