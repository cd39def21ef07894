"""The CUDA runner on CPU tensors: all of it but graphs and streams.

With the ops' references it is fast enough for all of the engine's tests; with the kernels in Triton's interpreter, for
a few of them (`test_with_kernels.py`). The runner can't tell: it is told that all kernels work.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from zeroshot.engine.engine import Engine
from zeroshot.engine.loader import load_engine as load_plain_engine
from zeroshot.model.config import GPT2Config
from zeroshot.model.fused_decode import FusedOps
from zeroshot.model.gpt2 import GPT2
from zeroshot.model.ops import Ops, device_backend
from zeroshot.model.weights import load_weights
from zeroshot.settings import EngineSettings

CPU = torch.device("cpu")
WORKING = dict.fromkeys(Ops.__dataclass_fields__, "triton")


def device_model(
    folder: Path,
    ops: Ops,
    kernels: dict[str, str],
    fused: FusedOps | None = None,
    kv_dtype: torch.dtype | None = None,
) -> GPT2:
    config = GPT2Config.from_folder(folder)
    weights = load_weights(folder, config, dtype=torch.float32, device=CPU)
    state = None if fused is None else "triton"
    return GPT2(config, weights, device_backend(ops, kernels, fused, state, kv_dtype=kv_dtype))


@cache
def model_on_references(folder: Path) -> GPT2:
    return device_model(folder, Ops(), WORKING)


@pytest.fixture(scope="session")
def load_engine() -> Callable[..., Engine]:
    """load_engine(folder, **EngineSettings): an engine on the CUDA runner, in this process, in fp32."""

    def load(folder: Path, **options: Any) -> Engine:
        if "num_threads" in options:
            torch.set_num_threads(options["num_threads"])
        settings = EngineSettings(**{"model_folder": folder, "kv_block_size": 16} | options)
        draft = settings.speculative_model and model_on_references(Path(settings.speculative_model))
        return Engine(model_on_references(folder), settings, draft or None)

    return load


@pytest.fixture(scope="session")
def load_cpu_engine() -> Callable[..., Engine]:
    def load(folder: Path, **options: Any) -> Engine:
        return load_plain_engine(EngineSettings(model_folder=folder, device="cpu", dtype="fp32", **options))

    return load
