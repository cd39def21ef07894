"""(g) Small batches: the five kernels of a decode layer, all layers in one graph, the engine with and without them.

Alone, a kernel is a launch and its latency, and finds nothing early: what counts is the layers in succession, started
early and in turn, beside the time in which their bytes could be read.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.engine import decode_case, make_engine
from benchmarks.gpu.roofline import fused_layer_bytes
from benchmarks.gpu.run import Run
from zeroshot.model.config import GPT2Config
from zeroshot.model.fused_decode import MAX_FUSED_ROWS, FoldedLinear, FusedOps
from zeroshot.model.triton_fused import fused_kernels
from zeroshot.settings import FusedDecode

_PAGE_SIZE = 64


def measure(run: Run) -> None:
    """Into results["fused"]: {shape: {"kernels": {case: …}, "layers": {case: …}, "engine": {batch: {path: …}}}}."""
    rows = [batch for batch in (1, 2, 4, MAX_FUSED_ROWS) if not run.is_dry or batch == 1]
    for shape, config in run.sizes.shapes.items():
        into = run.results.setdefault("fused", {}).setdefault(shape, {"kernels": {}, "layers": {}, "engine": {}})
        run.attempt(into, "start", partial(measure_kernels, run, into, config, rows))
        for path in ("off", "on"):
            run.attempt(into["engine"], f"start, {path}", partial(_measure_engine, run, into, config, rows, path))


def measure_kernels(run: Run, into: dict[str, Any], config: GPT2Config, rows: list[int]) -> dict[str, Any]:
    bandwidth = run.results["card"]["read_bytes_per_s"]
    context = min(512, config.n_positions) if not run.is_dry else 20
    can_start_early = run.device.type == "cuda" and torch.cuda.get_device_capability() >= (9, 0)
    for num_rows in rows:
        layers = [_Layer(run, config, num_rows, context, index) for index in range(config.n_layer)]
        num_bytes = fused_layer_bytes(config, num_rows, context, run.sizes.dtype.itemsize)
        for use_pdl in (False, True) if can_start_early else (False,):
            ops = fused_kernels(config, use_pdl, run.device)
            how = "started early" if use_pdl else "in turn"

            def timed(function: Callable[[], object], num_bytes: int, is_cold: bool) -> dict[str, float]:
                seconds = run.seconds(function, is_cold=is_cold)
                return {"us": seconds * 1e6, "bytes": num_bytes, "of_read_bandwidth": num_bytes / seconds / bandwidth}

            if not use_pdl:
                for name, launch in layers[0].launches(ops).items():
                    case = partial(timed, launch, num_bytes[name], True)
                    run.attempt(into["kernels"], f"{name}, {num_rows} rows", case)
            # All layers have weights of their own: of a whole model no cache holds what the next step needs.
            everything = partial(_run_all, layers, ops)
            total = sum(num_bytes.values()) * config.n_layer
            run.attempt(into["layers"], f"{num_rows} rows, {how}", partial(timed, everything, total, False))
    return {"context": context, "layers": config.n_layer}


def _run_all(layers: list["_Layer"], ops: FusedOps) -> None:
    residual = layers[0].residual
    for layer in layers:
        residual = layer.run(ops, residual)


class _Layer:
    """Random weights of a layer and contexts for it, as the engine has them."""

    def __init__(self, run: Run, config: GPT2Config, num_rows: int, context: int, seed: int) -> None:
        generator = torch.Generator(run.device).manual_seed(seed)

        def randn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=run.device, dtype=run.sizes.dtype)

        d, inner = config.n_embd, config.n_inner
        norm = (randn(d), randn(d), config.layer_norm_epsilon)
        self.qkv = FoldedLinear.of(*norm, randn(3 * d, d) * d**-0.5, randn(3 * d))
        self.attn_proj = (randn(d, d) * d**-0.5, randn(d))
        self.fc = FoldedLinear.of(*norm, randn(inner, d) * d**-0.5, randn(inner))
        self.fc_proj = (randn(d, inner) * inner**-0.5, randn(d))
        blocks = -(-context // _PAGE_SIZE)
        memory = randn(num_rows * blocks, config.n_head, 2, _PAGE_SIZE, config.head_dim)
        self.caches = memory.permute(2, 0, 3, 1, 4)
        tables = torch.arange(num_rows * blocks, device=run.device).int().view(num_rows, blocks)
        self.tables = F.pad(tables, (0, -(-config.n_positions // _PAGE_SIZE) - blocks))
        self.lens = torch.full((num_rows,), context, dtype=torch.int32, device=run.device)
        self.slots = (tables[:, -1] * _PAGE_SIZE + (context - 1) % _PAGE_SIZE).int()
        self.scale = config.head_dim**-0.5
        self.residual, self.hidden = randn(num_rows, d).float(), randn(num_rows, inner)

    def launches(self, ops: FusedOps) -> dict[str, Callable[[], object]]:
        """Each kernel alone, on inputs that are there already."""
        query = ops.ln_qkv_append(self.residual, *self.qkv, self.slots, *self.caches)
        splits = ops.split_attention(query, *self.caches, self.tables, self.lens, self.scale)
        append = partial(ops.ln_qkv_append, self.residual, *self.qkv, self.slots, *self.caches)
        return {
            "ln_qkv_append": append,
            "split_attention": partial(ops.split_attention, query, *self.caches, self.tables, self.lens, self.scale),
            "merge_projection": partial(ops.merge_projection, *splits, self.lens, *self.attn_proj, self.residual),
            "ln_fc_gelu": partial(ops.ln_fc_gelu, self.residual, *self.fc),
            "projection": partial(ops.projection, self.hidden, *self.fc_proj, self.residual),
        }

    def run(self, ops: FusedOps, residual: Tensor) -> Tensor:
        query = ops.ln_qkv_append(residual, *self.qkv, self.slots, *self.caches)
        splits = ops.split_attention(query, *self.caches, self.tables, self.lens, self.scale)
        residual = ops.merge_projection(*splits, self.lens, *self.attn_proj, residual)
        hidden = ops.ln_fc_gelu(residual, *self.fc)
        return ops.projection(hidden, *self.fc_proj, residual)


def _measure_engine(
    run: Run, into: dict[str, Any], config: GPT2Config, rows: list[int], path: FusedDecode
) -> dict[str, Any]:
    """The same work by both paths. Fills `into["engine"]`. Returns what ran as what."""
    engine = make_engine(run, config, rows[-1], fused_decode=path)
    for batch in rows:
        case = partial(decode_case, run, engine, batch)
        run.attempt(into["engine"].setdefault(str(batch), {}), "fused" if path == "on" else "plain", case)
    return {"kernels": engine.stats().kernels}
