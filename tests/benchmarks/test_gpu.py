"""benchmarks/gpu: every section's code runs, at tiny sizes with interpreted kernels; failures are reported as such."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.roofline import decode_floor_s, kv_bytes, prefill_flop, weight_bytes
from benchmarks.gpu.run import DRY, SHAPES, Run
from benchmarks.gpu.table import markdown
from tests.kernels.buffers import kernel_of

kernel_of("layer_norm")  # skips all of this with the reason, where kernels can't run

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.skipif(
    "GPU_DRY_RUN" not in os.environ, reason="takes many minutes in the interpreter: set GPU_DRY_RUN=1 to run it"
)
@pytest.mark.timeout(900)
def test_dry_run(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--dry-run", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=880, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = tmp_path.glob("*.json")
    assert path.name.startswith("dry-run-20")
    result = json.loads(path.read_text())
    assert {name: section["outcome"] for name, section in result["sections"].items()} == dict.fromkeys(
        ("tests", "card", "kernels", "engine", "peers", "http"), "done"
    )
    assert "skipped" in result["tests"]["summary"]
    assert set(result["engine"]["tiny"]["start"]["kernels"].values()) == {"triton"}
    cases = {
        **result["engine"]["tiny"]["decode"],
        **{f"{name} {batch}": case for name, peer in result["peers"]["tiny"].items() for batch, case in peer.items()},
        **result["http"],
        "prefill": result["engine"]["tiny"]["prefill"],
    }
    assert len(cases) == 2 + 5 + 2 + 1
    for name, case in cases.items():
        assert case.get("tokens_per_s", 0) > 0, (name, case)
    assert len(result["kernels"]) == 16
    for name, case in result["kernels"].items():
        assert case.get("us", 0) > 0, (name, case)
    assert path.with_suffix(".md").read_text() == done.stdout


def test_a_case_that_fails_or_comes_too_late_is_in_the_report():
    run, into = Run(torch.device("cpu"), True, DRY, deadline=float("inf")), {}
    run.attempt(into, "fails", lambda: 1 / 0)
    run.attempt(into, "works", lambda: {"tokens_per_s": 1.0})
    run.deadline = time.monotonic() - 1
    run.attempt(into, "late", lambda: 1 / 0)
    assert into == {
        "fails": {"failed": "ZeroDivisionError: division by zero"},
        "works": {"tokens_per_s": 1.0},
        "late": {"skipped": "the section's time was up"},
    }
    report = markdown({"card_name": "a card", "date": "today", "command": "x", "http": into})
    assert "| fails |  | failed: ZeroDivisionError: division by zero |" in report
    assert "not measured" in report


def test_roofline():
    """GPT-2's published sizes: parameters without positions, and keys and values of 512 tokens."""
    millions = {name: weight_bytes(config, 1) / 1e6 for name, config in SHAPES.items()}
    assert millions == pytest.approx({"124m": 123.65, "355m": 353.77, "774m": 772.7, "1.5b": 1556.0}, rel=1e-3)
    config = SHAPES["124m"]
    assert kv_bytes(config, 512, 2) == 2 * 2 * 12 * 768 * 512
    assert decode_floor_s(config, 1, 512, 2, 4.3e12) == pytest.approx(61.9e-6, rel=0.01)
    assert decode_floor_s(config, 512, 512, 2, 4.3e12) == pytest.approx(2309e-6, rel=0.01)
    assert prefill_flop(config, 1024) == pytest.approx(193e9, rel=0.01)
