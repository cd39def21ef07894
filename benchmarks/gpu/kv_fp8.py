"""(h) The engine with its KV cache in FP8 and with a plain one, where keys and values are most of the bytes."""

from functools import partial
from typing import Any

import torch

from benchmarks.gpu.engine import decode_case, fits, make_engine
from benchmarks.gpu.run import Run
from zeroshot.model.config import GPT2Config


def measure(run: Run) -> None:
    """Into results["kv_fp8"]: {shape: {batch: {"plain" or "fp8": …}}}; each with the roofline of its own bytes."""
    into = run.results.setdefault("kv_fp8", {})
    for index, (shape, config) in enumerate(run.sizes.shapes.items()):
        batches = run.sizes.first_batches if index == 0 else run.sizes.other_batches
        for batch in batches[-1:]:
            cases = into.setdefault(shape, {}).setdefault(str(batch), {})
            for name, kv_dtype in (("plain", None), ("fp8", torch.float8_e4m3fn)):
                run.attempt(cases, name, partial(_one, run, config, batch, kv_dtype))


def _one(run: Run, config: GPT2Config, batch: int, kv_dtype: torch.dtype | None) -> dict[str, Any]:
    if run.device.type == "cuda" and kv_dtype is not None and torch.cuda.get_device_capability() < (8, 9):
        raise ValueError("an FP8 cache needs compute capability 8.9")
    if not fits(run, config, batch, kv_dtype):
        return {"skipped": "its KV cache does not fit into this card's memory"}
    engine = make_engine(run, config, batch, kv_dtype=kv_dtype)
    decode_case(run, engine, batch)  # warm
    return decode_case(run, engine, batch)
