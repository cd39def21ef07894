"""The CUDA path as a whole: Hugging Face's logits, the CPU path's tokens, graphs that do what launches do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.gpu.conftest import cuda_model
from zeroshot.engine.device import CudaDevice
from zeroshot.engine.loader import load_model
from zeroshot.engine.selfcheck import prompt_logits
from zeroshot.settings import EngineSettings

SHAPE = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_head": 12, "n_layer": 4}


@pytest.fixture(scope="module")
def wide(checkpoint):
    """GPT-2's own widths, four layers of them."""
    return checkpoint(**SHAPE, initializer_range=0.08)


@pytest.fixture(scope="module")
def small(checkpoint):
    return checkpoint()


def test_every_kernel_works_on_this_card(wide, cuda):
    for dtype in ("fp32", "fp16", "bf16"):
        assert set(cuda_model(wide.folder, dtype).backend.kernels.values()) == {"triton"}


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-4), ("bf16", 2e-2), ("fp16", 5e-3)])
def test_logits_are_hugging_faces(wide, cuda, prompts_of, hugging_face_logits, dtype, tolerance):
    (token_ids,) = prompts_of(1, [700], vocab_size=50256)
    expected = hugging_face_logits(wide.model, token_ids)
    for chunk in (700, 129):
        found = prompt_logits(cuda_model(wide.folder, dtype), token_ids, chunk).cpu()
        assert float((found - expected).norm() / expected.norm()) < tolerance
    one_by_one = prompt_logits(cuda_model(wide.folder, dtype), token_ids[:40], 1).cpu()
    assert float((one_by_one - expected[:40]).norm() / expected[:40].norm()) < tolerance


def test_greedy_tokens_of_20_prompts_are_the_cpu_paths(wide, load_engine, load_cpu_engine, run, request_of, prompts_of):
    prompts = prompts_of(2, [1, 3, 16, 40, 63, 64, 65, 100, 128, 200] * 2, vocab_size=50256)
    requests = [request_of(str(i), prompt, max_tokens=24, ignore_eos=True) for i, prompt in enumerate(prompts)]
    expected = run(load_cpu_engine(wide.folder, max_num_batched_tokens=4096), *requests)
    for options in ({"max_num_seqs": 20}, {"max_num_seqs": 1}):
        found = run(load_engine(wide.folder, **options), *requests)
        assert {key: r.token_ids for key, r in found.items()} == {key: r.token_ids for key, r in expected.items()}


def test_a_replayed_graph_does_what_the_launches_do(small, load_engine, monkeypatch, run, request_of, prompts_of):
    kinds = [
        {"temperature": 0.0},
        {"temperature": 1.0},
        {"temperature": 0.9, "top_k": 20, "top_p": 0.9},
        {"temperature": 1.0, "frequency_penalty": 0.5, "logprobs": 5},
    ]
    for i, kind in enumerate(kinds):
        prompts = prompts_of(i, [5, 33, 64, 7, 12])
        requests = [
            request_of(str(j), p, max_tokens=20, seed=j, ignore_eos=True, **kind) for j, p in enumerate(prompts)
        ]
        replayed = run(load_engine(small.folder), *requests)
        with monkeypatch.context() as patch:
            patch.setattr(CudaDevice, "record", lambda self, function: function)
            launched = run(load_engine(small.folder), *requests)
        assert replayed == launched


def test_what_is_sampled_is_distributed_as_the_model_says(small, load_engine, run, request_of, hugging_face_logits):
    """Chi-square over 8,000 first tokens, plain and with filters."""
    prompt, n = [5, 6, 7], 8000
    logits = hugging_face_logits(small.model, prompt)[-1]
    for options in ({}, {"top_k": 12}, {"top_p": 0.8}):
        probabilities = logits.softmax(-1)
        order = probabilities.argsort(descending=True)
        kept = torch.ones_like(order, dtype=torch.bool)
        kept[options.get("top_k", len(kept)) :] = False
        kept &= probabilities[order].cumsum(0) - probabilities[order] < options.get("top_p", 1.0)
        probabilities[order[~kept]] = 0
        expected = n * probabilities / probabilities.sum()
        engine = load_engine(small.folder, max_num_seqs=64)
        params = {"temperature": 1.0, "max_tokens": 1, "ignore_eos": True} | options
        results = run(engine, *(request_of(str(seed), prompt, seed=seed, **params) for seed in range(n)))
        counts = torch.zeros(len(expected))
        for result in results.values():
            counts[result.token_ids[0]] += 1
        assert counts[expected == 0].sum() == 0
        common = expected >= 5
        rest = torch.tensor([counts[~common].sum(), expected[~common].sum()])
        statistic = float(((counts - expected)[common] ** 2 / expected[common]).sum())
        statistic += float((rest[0] - rest[1]) ** 2 / rest[1].clamp(min=1.0))
        dof = int(common.sum())
        assert statistic < dof + 5 * (2 * dof) ** 0.5


def test_a_kernel_that_fails_gives_way(small, cuda, monkeypatch, run, request_of, hugging_face_greedy):
    from zeroshot.engine.engine import Engine
    from zeroshot.model import triton_ops

    def broken(*_args, **_kwargs):
        raise RuntimeError("Failed to find C compiler.")

    load_kernel = triton_ops.load_kernel
    for name in ("decode_attention", "layer_norm"):
        with monkeypatch.context() as patch:
            patch.setattr(triton_ops, "load_kernel", lambda op, name=name: broken if op == name else load_kernel(op))
            settings = EngineSettings(model_folder=small.folder, device="cuda", dtype="fp32", max_num_seqs=4)
            engine = Engine(load_model(settings), settings)
        assert engine.stats().kernels[name] == "reference: RuntimeError: Failed to find C compiler."
        result = run(engine, request_of("a", [1, 2, 3], max_tokens=12))["a", 0]
        assert result.token_ids == hugging_face_greedy(small.model, [1, 2, 3], 12)


def test_compute_sanitizer_finds_nothing_in_the_decode_kernels(cuda):
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    script = Path(__file__).with_name("sanitized_decode.py")
    repository = script.parents[2]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(repository / "server"), str(repository / "kernels")]),
        # PyTorch's allocator would hide an overrun within one of its large blocks.
        "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
    }
    options = ["--tool", "memcheck", "--report-api-errors", "no", "--error-exitcode", "7"]
    command = [sanitizer, *options, sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    if "Device not supported" in done.stdout + done.stderr:
        pytest.skip("compute-sanitizer does not support this machine")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
