"""The benchmark runs, and what the README says is what it wrote."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2LMHeadModel

from benchmarks.cpu import BASELINE, SERVED, markdown_table, random_prompts
from benchmarks.cpu_chart import draw
from benchmarks.cpu_llama_cpp import LlamaCpp
from benchmarks.cpu_peers import peers
from benchmarks.cpu_tokens import SAMPLED
from benchmarks.random_checkpoint import random_checkpoint

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(600)  # every system is loaded


def run(tmp_path: Path, *options: str) -> dict[str, Any]:
    sizes = ["--size", "tiny", "--rounds", "1", "--output-tokens", "4", "--threads", "1"]
    output = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.cpu", *sizes, "--output", str(output)]
    result = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=550)
    assert result.returncode == 0, result.stderr
    return json.loads(output.read_text())


def test_it_runs_from_one_command_and_goes_on_level_by_level(tiny_checkpoint: Path, tmp_path: Path) -> None:
    options = ["--checkpoints", str(tiny_checkpoint.parent), "--concurrency"]
    rates = run(tmp_path, *options, "1", "prefill")["tokens_per_second"]
    assert {*SERVED, BASELINE, "zeroshot int8, engine alone"} <= set(rates)
    for row in rates.values():
        assert [len(values) for values in row.values()] == [1, 1]
        assert all(value > 0 for values in row.values() for value in values)
    served, earlier = "zeroshot int8, HTTP", rates[BASELINE]["1"]
    rates = run(tmp_path, *options, "2", "--systems", served, BASELINE, "--merge")["tokens_per_second"]
    assert rates[BASELINE]["1"] == earlier
    assert [name for name, row in rates.items() if "2" in row] == [served, BASELINE]  # one level is of one call


def test_all_systems_can_draw_their_tokens(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Each is called with its own names for the same filters, those installed by `make bench-peers` too."""
    found, _ = peers(tiny_checkpoint, 1)
    systems = ["zeroshot int8, HTTP", *(name for name in found if name != "zeroshot fp32, engine alone")]
    options = ["--checkpoints", str(tiny_checkpoint.parent), "--concurrency", "2", "--sampled"]
    result = run(tmp_path, *options, "--systems", *systems)
    assert result["sampling"] == {"temperature": 0.8, "top_k": 40, "top_p": 0.95}
    assert list(result["tokens_per_second"]) == systems
    assert min(rate for row in result["tokens_per_second"].values() for rate in row["2"]) > 0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[int]], torch.Tensor]:
    """A checkpoint, prompts, and Hugging Face's logits after each of them."""
    pytest.importorskip("llama_cpp", reason="there is no llama.cpp: make bench-peers")
    folder, prompts = random_checkpoint("tiny", tmp_path_factory.mktemp("tiny")), random_prompts(3, 20, seed=1)
    with torch.inference_mode():
        return folder, prompts, GPT2LMHeadModel.from_pretrained(folder).eval()(torch.tensor(prompts)).logits[:, -1]


def test_llama_cpp_runs_the_same_model(tiny: tuple[Path, list[list[int]], torch.Tensor]) -> None:
    folder, prompts, logits = tiny
    assert LlamaCpp(folder, "F32", 2).tokens(prompts, 1) == logits.argmax(-1, keepdim=True).tolist()


def test_llama_cpp_draws_from_the_best_tokens(tiny: tuple[Path, list[list[int]], torch.Tensor]) -> None:
    folder, prompts, logits = tiny
    best = logits.topk(SAMPLED.top_k).indices.tolist()
    drawn = [LlamaCpp(folder, "F32", 1, SAMPLED).tokens(prompts, 1) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert all(token in row for (token,), row in zip(drawn[0], best, strict=True))
    assert drawn[0] != [[row[0]] for row in best]


def test_the_chart_is_drawn_from_the_result_file(tmp_path: Path) -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "cpu.json").read_text())
    draw(result, tmp_path / "cpu.png")
    assert (tmp_path / "cpu.png").read_bytes()[:4] == b"\x89PNG"


def test_the_readme_says_what_the_result_file_says() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "cpu.json").read_text())
    readme = (ROOT / "README.md").read_text()
    assert markdown_table(result) in readme
    assert result["machine"]["cpu"] in readme


@pytest.mark.parametrize("name", ["cpu_sampled", "cpu_amx", "cpu_avx2"])
def test_the_docs_say_what_the_other_result_files_say(name: str) -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    assert markdown_table(result) in (ROOT / "docs" / "cpu.md").read_text()
