"""Tests that need a CUDA device: `make test-gpu`. By themselves, since the other tests import Triton's interpreter.

The engine's own tests run here once more, in fp32, on kernels and graphs (`test_generation.py` and the like).
"""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.conftest import *  # noqa: F403  (fixtures: run, step, drain, request_of, prompts_of, …)
from zeroshot.engine.engine import Engine
from zeroshot.engine.loader import load_engine as load_any_engine
from zeroshot.engine.loader import load_model
from zeroshot.model.gpt2 import GPT2
from zeroshot.settings import EngineSettings


def why_not() -> str:
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "Triton is an interpreter in this run: make test-gpu"
    return ""


@pytest.fixture(autouse=True, scope="session")
def cuda() -> torch.device:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    return torch.device("cuda")


@cache
def cuda_model(folder: Path, dtype: str) -> GPT2:
    return load_model(EngineSettings(model_folder=folder, device="cuda", dtype=dtype, max_num_seqs=64))


@pytest.fixture(scope="session")
def load_engine(cuda: torch.device) -> Callable[..., Engine]:
    """load_engine(folder, **EngineSettings): an engine on the GPU, fp32 unless told otherwise."""

    def load(folder: Path, **options: Any) -> Engine:
        dtype = options.pop("dtype", "fp32")
        # Kernels want whole tiles in a block; whoever asks for odd blocks asks about prefixes, and is on the CPU.
        options["kv_block_size"] = -(-options.get("kv_block_size", 16) // 16) * 16
        settings = EngineSettings(**{"model_folder": folder, "max_num_seqs": 16} | options)
        draft = settings.speculative_model and cuda_model(Path(settings.speculative_model), dtype)
        return Engine(cuda_model(folder, dtype), settings, draft or None)

    return load


@pytest.fixture(scope="session")
def load_cpu_engine() -> Callable[..., Engine]:
    def load(folder: Path, **options: Any) -> Engine:
        return load_any_engine(EngineSettings(model_folder=folder, device="cpu", dtype="fp32", **options))

    return load
