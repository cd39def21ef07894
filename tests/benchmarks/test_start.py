"""The benchmark of the start runs, and docs/cpu.md says what it wrote."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def test_it_runs_from_one_command(checkpoint: Callable[..., Any], tmp_path: Path) -> None:
    model = checkpoint(vocab_size=50257, n_positions=1024, n_embd=64, n_layer=2, n_head=4).folder
    output = tmp_path / "start.json"
    options = ["--model", str(model), "--rounds", "1", "--dtypes", "fp32", "--output", str(output)]
    command = [sys.executable, "-m", "benchmarks.start", *options]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    (seconds,) = json.loads(output.read_text())["seconds_to_ready"]["fp32"]
    assert 0 < seconds < 200


def test_the_page_says_what_the_result_file_says() -> None:
    seconds = json.loads((ROOT / "benchmarks" / "results" / "start.json").read_text())["seconds_to_ready"]
    page = (ROOT / "docs" / "cpu.md").read_text()
    for dtype, values in seconds.items():
        assert f"{statistics.median(values):.1f} s in {dtype}" in page
