"""The benchmark runs, and what the README says is what it wrote."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.cpu import SYSTEMS, markdown_table

ROOT = Path(__file__).parents[2]


def test_it_runs_from_one_command(tmp_path: Path) -> None:
    options = ["--size", "tiny", "--concurrency", "1", "2", "--rounds", "1", "--output-tokens", "4", "--threads", "1"]
    output = tmp_path / "result.json"
    paths = ["--checkpoints", str(tmp_path), "--output", str(output)]
    command = [sys.executable, "-m", "benchmarks.cpu", *options, *paths]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    rates = json.loads(output.read_text())["tokens_per_second"]
    assert set(rates) == set(SYSTEMS)
    for row in rates.values():
        assert [len(values) for values in row.values()] == [1, 1]
        assert all(value > 0 for values in row.values() for value in values)


def test_the_readme_says_what_the_result_file_says() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "cpu.json").read_text())
    readme = (ROOT / "README.md").read_text()
    assert markdown_table(result) in readme
    assert result["machine"]["cpu"] in readme
