"""benchmarks/cpu_sampling: it runs, it compares the kernels with what runs without them, and docs/cpu.md quotes it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import cpu_sampling
from zeroshot.engine.loader import load_model
from zeroshot.engine.sampler import sample
from zeroshot.engine.sequence import Sequence
from zeroshot.model.native_ops import why_unavailable
from zeroshot.settings import EngineSettings
from zeroshot.types import SamplingParams

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(600)  # every system is loaded


@pytest.mark.skipif(why_unavailable() is not None, reason=f"no C++ kernels: {why_unavailable()}")
def test_it_runs_from_one_command(tiny_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    sizes = ["--size", "tiny", "--rounds", "2", "--streams", "1", "3", "--max-tokens", "2"]
    command = [sys.executable, "-m", "benchmarks.cpu_sampling", *sizes, "--checkpoints", str(tiny_checkpoint.parent)]
    result = subprocess.run([*command, "--output", str(output)], cwd=ROOT, capture_output=True, text=True, timeout=550)
    assert result.returncode == 0, result.stderr
    written = json.loads(output.read_text())
    assert [*written["tokens_per_second"]] == ["1", "3"]
    for rows, jobs in (
        *((rows, cpu_sampling.CASES) for rows in written["tokens_per_second"].values()),
        (written["scored"], cpu_sampling.SCORED),
    ):
        assert rows.keys() == jobs.keys()
        for rates in rows.values():
            assert rates.keys() == {"C++ kernels", "PyTorch"}
            assert [len(rate) for rate in rates.values()] == [2, 2]
            assert min(*rates["C++ kernels"], *rates["PyTorch"]) > 0


@pytest.mark.skipif(why_unavailable() is not None, reason=f"no C++ kernels: {why_unavailable()}")
def test_what_is_compared_is_with_the_kernels_and_without(checkpoint):
    model = load_model(EngineSettings(model_folder=checkpoint().folder, device="cpu", dtype="fp32"))
    backend, num_draws = model.backend, []
    kernels = backend.sampling_kernels

    def counted(logits, *arguments, **options):
        num_draws.append(len(logits))
        return kernels.draw(logits, *arguments, **options)

    model.backend = replace(backend, sampling_kernels=replace(kernels, draw=counted))
    for has_kernels in (True, False):
        num_draws.clear()
        with cpu_sampling.sampling_by(model, has_kernels=has_kernels):
            sample(
                torch.randn(2, 211),
                [Sequence(str(i), i, [1], 1, SamplingParams()) for i in range(2)],
                0,
                model.backend.sampling_kernels,
            )
        assert num_draws == [2] * has_kernels
        assert model.backend.sampling_kernels.draw is counted


@pytest.mark.parametrize("name", ["cpu_sampling", "cpu_sampling_demo"])
def test_the_docs_say_what_the_result_files_say(name: str) -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    assert cpu_sampling.markdown_table(result) in (ROOT / "docs" / "cpu.md").read_text()
