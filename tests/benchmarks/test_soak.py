"""A short soak: nothing lost, nothing wrong, nothing leaked, with the engine killed and stopped on the way."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.soak import leaks
from benchmarks.soak_traffic import is_same

ROOT = Path(__file__).parents[2]


def test_a_short_soak(tmp_path: Path) -> None:
    output = tmp_path / "soak.json"
    options = ["--minutes", "0.5", "--concurrency", "8", "--fault-interval-s", "6", "--recheck-share", "0.2"]
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
