"""The benchmark runs, and what docs/cpu.md says is what it wrote."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cpu_kernels import SYSTEMS, markdown_table
from zeroshot.model.native_ops import why_unavailable

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(600)  # every system is loaded


@pytest.mark.skipif(why_unavailable() is not None, reason=f"no C++ kernels: {why_unavailable()}")
def test_it_runs_from_one_command(tiny_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    sizes = ["--size", "tiny", "--rounds", "2", "--seconds", "0.01", "--steps", "1", "3", "256"]
    command = [sys.executable, "-m", "benchmarks.cpu_kernels", *sizes, "--checkpoints", str(tiny_checkpoint.parent)]
    result = subprocess.run([*command, "--output", str(output)], cwd=ROOT, capture_output=True, text=True, timeout=550)
    assert result.returncode == 0, result.stderr
    rates = json.loads(output.read_text())["tokens_per_second"]
    assert rates.keys() == SYSTEMS.keys()
    for row in rates.values():
        assert [len(row[steps]) for steps in ("1", "3", "256")] == [2, 2, 2]
        assert min(rate for values in row.values() for rate in values) > 0


@pytest.mark.parametrize("name", ["cpu_kernels", "cpu_kernels_amx"])
def test_the_docs_say_what_the_result_files_say(name: str) -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    assert markdown_table(result) in (ROOT / "docs" / "cpu.md").read_text()
