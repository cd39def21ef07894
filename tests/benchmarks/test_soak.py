"""A short soak: nothing lost, nothing wrong, nothing leaked, with the engine killed and stopped on the way."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
