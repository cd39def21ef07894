"""benchmarks/gpu: every section's code runs, at tiny sizes with interpreted kernels; failures are reported as such."""

import json
import os
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as gpu_main
from benchmarks.gpu import fused
from benchmarks.gpu import tests as gpu_tests
from benchmarks.gpu.engine import all_at_once, make_engine
from benchmarks.gpu.roofline import decode_floor_s, fused_layer_bytes, kv_bytes, prefill_flop, weight_bytes
from benchmarks.gpu.run import DRY, SHAPES, Run
from benchmarks.gpu.table import markdown
from tests.kernels.buffers import kernel_of

kernel_of("layer_norm")  # skips all of this with the reason, where kernels can't run

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.skipif(
    "GPU_DRY_RUN" not in os.environ, reason="takes minutes in the interpreter: set GPU_DRY_RUN=1 to run it"
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
        ("tests", "card", "kernels", "engine", "fused", "kv_fp8", "peers", "http"), "done"
    )
    assert "skipped" in result["tests"]["summary"]
    states = result["engine"]["tiny"]["start"]["kernels"]
    assert states.pop("fused_decode") == "plain path: needs compute capability 9.0"
    assert set(states.values()) == {"triton"}
    check_fused(result["fused"]["tiny"], 1)
    assert all(case["tokens_per_s"] > 0 for case in result["kv_fp8"]["tiny"]["2"].values())
    cases = {
        **result["engine"]["tiny"]["decode"],
        **{f"{name} {batch}": case for name, peer in result["peers"]["tiny"].items() for batch, case in peer.items()},
        **result["http"],
        "prefill": result["engine"]["tiny"]["prefill"],
    }
    assert len(cases) == 2 + 5 + 3 + 1
    assert result["http"]["plain"]["of_engine"] > 0
    for name, case in cases.items():
        assert case.get("tokens_per_s", 0) > 0, (name, case)
    assert len(result["kernels"]) == 20
    for name, case in result["kernels"].items():
        assert case.get("us", 0) > 0, (name, case)
    assert path.with_suffix(".md").read_text() == done.stdout


def test_a_dry_run_of_the_peers(tmp_path):
    """Whole commands and processes, without the interpreter."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--dry-run", "--only", "peers", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = tmp_path.glob("dry-run-*.json")
    result = json.loads(path.read_text())
    assert {name: section["outcome"] for name, section in result["sections"].items()} == {
        "card": "done",
        "peers": "done",
    }
    assert min(case["tokens_per_s"] for peer in result["peers"]["tiny"].values() for case in peer.values()) > 0
    assert path.with_suffix(".md").read_text() == done.stdout


def check_fused(found, batch):
    assert set(found["engine"]["start, on"]["kernels"].values()) == {"triton"}
    assert "fused_decode" not in found["engine"]["start, off"]["kernels"]
    rates = {name: case["tokens_per_s"] for name, case in found["engine"][str(batch)].items()}
    assert set(rates) == {"plain", "fused"}
    assert min(rates.values()) > 0
    check_fused_kernels(found)


def check_fused_kernels(found):
    assert len(found["kernels"]) == 5
    assert len(found["layers"]) == 1
    for case in {**found["kernels"], **found["layers"]}.values():
        assert case["us"] > 0
        assert case["bytes"] > 0


def test_the_kernels_of_small_batches_are_measured_and_in_the_report():
    """The section's own code, on the CPU with interpreted kernels."""
    run = Run(torch.device("cpu"), True, DRY, {"card": {"read_bytes_per_s": 1e9}}, deadline=float("inf"))
    found = {"kernels": {}, "layers": {}, "engine": {"1": {"plain": {"tokens_per_s": 2.0, "of_roofline": 0.5}}}}
    found["engine"]["1"]["fused"] = {"tokens_per_s": 3.0, "of_roofline": 0.75}
    fused.measure_kernels(run, found, DRY.shapes["tiny"], [1])
    check_fused_kernels(found)
    report = markdown({"card_name": "a card", "date": "today", "command": "x", "fused": {"tiny": found}})
    assert "| tiny | 1 | fused | 3 | 75.0% | 1.5 |" in report
    assert "| tiny | ln_qkv_append, 1 rows |" in report


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
    assert "| fails |  | failed: ZeroDivisionError: division by zero |  |" in report
    assert "not measured" in report


def test_an_engine_is_gone_when_its_case_has_been_measured():
    """The server that is measured next is another process, and takes a share of the memory that is left."""
    run, into, engines = Run(torch.device("cpu"), True, DRY, deadline=float("inf")), {}, []

    def measure():
        engine = make_engine(run, DRY.shapes["tiny"], 2)
        rate = all_at_once(run, engine, 2, 4, 4, "alone")
        engines.extend(map(weakref.ref, (engine, engine.model, engine.runner)))
        return {"tokens_per_s": rate}

    run.attempt(into, "engine", measure)
    assert into["engine"]["tokens_per_s"] > 0
    assert [engine() for engine in engines] == [None, None, None]


def test_roofline():
    """GPT-2's published sizes: parameters without positions, and keys and values of 512 tokens."""
    millions = {name: weight_bytes(config, 1) / 1e6 for name, config in SHAPES.items()}
    assert millions == pytest.approx({"124m": 123.65, "355m": 353.77, "774m": 772.7, "1.5b": 1556.0}, rel=1e-3)
    config = SHAPES["124m"]
    assert kv_bytes(config, 512, 2) == 2 * 2 * 12 * 768 * 512
    assert decode_floor_s(config, 1, 512, 2, 4.3e12, kv_bytes_per_value=2) == pytest.approx(61.9e-6, rel=0.01)
    assert decode_floor_s(config, 512, 512, 2, 4.3e12, kv_bytes_per_value=2) == pytest.approx(2309e-6, rel=0.01)
    assert 512 / decode_floor_s(config, 512, 512, 2, 4.3e12, kv_bytes_per_value=1) == pytest.approx(433e3, rel=0.01)
    layer = fused_layer_bytes(config, 1, 512, 2)
    everything = config.n_layer * (sum(layer.values()) - layer["split_attention"]) + 2 * (50257 + 2) * 768
    assert everything == weight_bytes(config, 2)
    assert config.n_layer * layer["split_attention"] == kv_bytes(config, 512, 2)
    assert prefill_flop(config, 1024) == pytest.approx(193e9, rel=0.01)


XDIST = """\
tests/gpu/test_kernels.py::test_logprobs[dtype0]
[gw1] [  1%] PASSED tests/gpu/test_kernels.py::test_logprobs[dtype0]
tests/gpu/test_engine.py::test_a_kernel_that_fails_gives_way
[gw0] [  2%] FAILED tests/gpu/test_engine.py::test_a_kernel_that_fails_gives_way
[gw2] [  3%] SKIPPED tests/gpu/test_kv_fp8.py::test_x[a b]
FAILED tests/gpu/test_engine.py::test_a_kernel_that_fails_gives_way - AssertionError
"""
ALONE = """\
tests/gpu/test_kernels.py::test_logprobs[dtype0] PASSED                  [  1%]
tests/gpu/test_engine.py::test_a_kernel_that_fails_gives_way FAILED      [  2%]
tests/gpu/test_kv_fp8.py::test_x[a b] SKIPPED (there is no CUDA device)  [  3%]
tests/gpu/test_kv_fp8.py::test_that_was_running
"""


@pytest.mark.parametrize("text", [XDIST, ALONE])
def test_tests_that_have_ended_count_when_the_others_were_stopped(text):
    found = gpu_tests.read(text, is_whole=False)
    assert found == {
        "summary": "1 failed, 1 passed, 1 skipped; then its time was up",
        "failures": ["tests/gpu/test_engine.py::test_a_kernel_that_fails_gives_way"],
    }
    assert gpu_tests.read("", is_whole=True)["summary"] == "no test has ended"


def test_a_section_that_is_killed_leaves_what_it_has_measured(tmp_path, monkeypatch):
    """The parent's part: its limit, the outcome, and the results so far."""
    state = tmp_path / "results.json"
    state.write_text(json.dumps({"sections": {}, "date": "2026-01-01T00:00:00", "command": "x"}))
    section = tmp_path / "section.py"
    section.write_text(
        "import json, pathlib, sys, time\n"
        "state = pathlib.Path(sys.argv[2])\n"
        "state.write_text(json.dumps(json.loads(state.read_text()) | {'card_name': 'A Card'}))\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(gpu_main, "SECTIONS", {"card": 1.0})
    monkeypatch.setattr(gpu_main, "_GRACE_S", 1.0)
    monkeypatch.setattr(gpu_main, "_SECTION", [str(section)])
    result = gpu_main.run_section("card", state, is_dry=False)
    assert result["sections"]["card"]["outcome"] == "stopped: its time was up"
    assert result["card_name"] == "A Card"
    gpu_main.write(result, tmp_path)
    assert json.loads((tmp_path / "a-card-2026-01-01.json").read_text()) == result
    assert "stopped: its time was up" in (tmp_path / "a-card-2026-01-01.md").read_text()
