"""(c) Every kernel at GPT-2 124M's shapes: time, and its share of the read bandwidth or of the matrix rate."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.run import Run
from zeroshot.model.triton_ops import load_kernel
from zeroshot_kernels.decode_attention.kernel import DecodeWorkspace

Case = tuple[str, Callable[[], object], float, float]
"""Name, what to launch, bytes it must move, FLOP it must do."""

PAGE_SIZE = 64


def measure(run: Run) -> None:
    """Into results["kernels"]: {case: {"us", "of_read_bandwidth", "of_matrix_rate"}}."""
    card, into = run.results["card"], run.results.setdefault("kernels", {})
    for cases in (_attention, _attention_fp8, _rows, _head):
        for name, launch, num_bytes, flop in cases(run):

            def one(launch: Callable[[], object] = launch, num_bytes: float = num_bytes, flop: float = flop) -> Any:
                seconds = run.seconds(launch)
                return {
                    "us": seconds * 1e6,
                    "of_read_bandwidth": num_bytes / seconds / card["read_bytes_per_s"],
                    "of_matrix_rate": flop / seconds / card["matrix_flop_per_s"],
                }

            run.attempt(into, name, one)


def _randn(run: Run, *shape: int) -> Tensor:
    return torch.randn(shape, device=run.device, dtype=run.sizes.dtype)


def _attention(run: Run) -> Iterator[Case]:
    config = next(iter(run.sizes.shapes.values()))
    n_head, head_dim, dtype = config.n_head, config.head_dim, run.sizes.dtype
    context = 512 if not run.is_dry else 20
    for num_seqs in run.sizes.first_batches:
        blocks = -(-context // PAGE_SIZE)
        caches = _randn(run, num_seqs * blocks, n_head, 2, PAGE_SIZE, head_dim).permute(2, 0, 3, 1, 4)
        tables = torch.randperm(num_seqs * blocks, device=run.device).int().view(num_seqs, blocks)
        lens = torch.full((num_seqs,), context, dtype=torch.int32, device=run.device)
        qkv = _randn(run, num_seqs, 3, n_head, head_dim)
        workspace = DecodeWorkspace.allocate(num_seqs, n_head, head_dim, blocks * PAGE_SIZE, run.device)
        num_bytes = (2 * num_seqs * context * n_head * head_dim + 2 * qkv[:, 0].numel()) * dtype.itemsize
        yield (
            f"decode_attention, {num_seqs} x {context}",
            _call("decode_attention", qkv[:, 0], *caches, tables, lens, head_dim**-0.5, workspace=workspace),
            num_bytes,
            0.0,
        )
    slots = torch.arange(num_seqs, dtype=torch.int32, device=run.device) * PAGE_SIZE
    append = _call("kv_append", qkv[:, 1], qkv[:, 2], slots, *caches)
    yield f"kv_append, {num_seqs} tokens", append, 4 * qkv[:, 1].numel() * dtype.itemsize, 0.0
    num_seqs, length = run.sizes.num_prefills, 1024 if not run.is_dry else 20
    blocks = -(-length // PAGE_SIZE)
    caches = _randn(run, num_seqs * blocks, n_head, 2, PAGE_SIZE, head_dim).permute(2, 0, 3, 1, 4)
    tables = torch.arange(num_seqs * blocks, device=run.device).int().view(num_seqs, blocks)
    lens = torch.full((num_seqs,), length, dtype=torch.int32, device=run.device)
    query = _randn(run, num_seqs * length, n_head, head_dim)
    yield (
        f"prefill_attention, {num_seqs} x {length}",
        _call("prefill_attention", query, *caches, tables, lens, lens, head_dim**-0.5),
        4 * query.numel() * dtype.itemsize,
        2.0 * num_seqs * n_head * head_dim * length**2,
    )


def _attention_fp8(run: Run) -> Iterator[Case]:
    """The largest batch with its cache in FP8: half the bytes of bf16."""
    config = next(iter(run.sizes.shapes.values()))
    n_head, head_dim, dtype = config.n_head, config.head_dim, run.sizes.dtype
    context, num_seqs = 512 if not run.is_dry else 20, run.sizes.first_batches[-1]
    blocks = -(-context // PAGE_SIZE)
    memory = _randn(run, num_seqs * blocks, n_head, 2, PAGE_SIZE, head_dim).to(torch.float8_e4m3fn)
    caches = memory.permute(2, 0, 3, 1, 4)
    tables = torch.randperm(num_seqs * blocks, device=run.device).int().view(num_seqs, blocks)
    lens = torch.full((num_seqs,), context, dtype=torch.int32, device=run.device)
    query = _randn(run, num_seqs, n_head, head_dim)
    scales = torch.ones(n_head, device=run.device), torch.ones(n_head, device=run.device)
    workspace = DecodeWorkspace.allocate(num_seqs, n_head, head_dim, blocks * PAGE_SIZE, run.device)
    yield (
        f"decode_attention, {num_seqs} x {context}, FP8 cache",
        _call("decode_attention", query, *caches, tables, lens, head_dim**-0.5, *scales, workspace=workspace),
        2 * num_seqs * context * n_head * head_dim + 2 * query.numel() * dtype.itemsize,
        0.0,
    )


def _rows(run: Run) -> Iterator[Case]:
    config = next(iter(run.sizes.shapes.values()))
    itemsize = run.sizes.dtype.itemsize
    for num_rows in (run.sizes.first_batches[0], run.sizes.first_batches[-1]):
        hidden, weight, bias = (_randn(run, *shape) for shape in ((num_rows, config.n_embd), *[(config.n_embd,)] * 2))
        norm = _call("layer_norm", hidden, hidden.float(), weight, bias, 1e-5)
        yield f"layer_norm, {num_rows} rows", norm, hidden.numel() * (2 * itemsize + 8), 0.0
        inner, inner_bias = _randn(run, num_rows, config.n_inner), _randn(run, config.n_inner)
        yield f"bias_gelu, {num_rows} rows", _call("bias_gelu", inner, inner_bias), 2 * inner.numel() * itemsize, 0.0

    wte, wpe = _randn(run, config.vocab_size, config.n_embd), _randn(run, config.n_positions, config.n_embd)
    for num_rows in run.sizes.first_batches[:2]:
        tokens = torch.arange(num_rows, device=run.device)
        start = _call("embedding", tokens, tokens, wte, wpe)
        yield f"embedding, {num_rows} rows", start, num_rows * config.n_embd * (2 * itemsize + 4), 0.0


def _head(run: Run) -> Iterator[Case]:
    """Draws as the engine makes them: log-probabilities are taken of the logits of those rows that want them."""
    config, device = next(iter(run.sizes.shapes.values())), run.device
    lm_head = _randn(run, config.vocab_size, config.n_embd) * config.n_embd**-0.5
    head_bytes = lm_head.numel() * run.sizes.dtype.itemsize
    for num_rows in run.sizes.first_batches:
        longs = torch.arange(num_rows, device=device)
        ones, off = torch.ones(num_rows, device=device), torch.zeros(num_rows, device=device)
        if num_rows <= 64:
            hidden = _randn(run, num_rows, config.n_embd)
            fused = _call("lm_head_sampling", hidden, lm_head, ones, longs, longs, longs, with_logprobs=False)
            yield f"lm_head_sampling, {num_rows} rows", fused, head_bytes, 0.0
        logits = 3 * torch.randn(num_rows, -(-config.vocab_size // 64) * 64, device=device)[:, : config.vocab_size]
        num_bytes = 4.0 * num_rows * config.vocab_size
        filtered = (torch.full_like(ones, 50).int(), 0.9 * ones, off)
        for name, filters in (("temperature", (None, None, None)), ("top-k 50, top-p 0.9", filtered)):
            draw = _call("sampling", logits, ones, *filters, longs, longs, longs, with_logprobs=False)
            yield f"sampling, {num_rows} rows, {name}", draw, num_bytes, 0.0
    entries = (longs.int(), longs.int(), off, off > 0, longs.int())
    state = (longs, longs.clone(), longs.clone(), longs.clone(), longs.int())
    slot_table = torch.zeros(num_rows, config.n_positions, device=device, dtype=torch.int32)
    moved = _call("advance", longs, ones > 0, None, *state, slot_table, longs.int(), longs.clone())
    yield f"advance, {num_rows} rows", moved, 117.0 * num_rows, 0.0
    yield (
        f"logit_adjustment, {num_rows} entries",
        _call("logit_adjustment", logits, *entries, ones, off, off),
        8.0 * num_rows,
        0.0,
    )
    num_rows = 1024 if not run.is_dry else 4
    hidden, targets = _randn(run, num_rows, config.n_embd), torch.arange(num_rows, device=device) % config.vocab_size
    scores = _call("logprobs", hidden, lm_head, targets)
    yield f"logprobs, {num_rows} rows", scores, head_bytes, 2.0 * num_rows * lm_head.numel()


def _call(name: str, *arguments: Any, **options: Any) -> Callable[[], object]:
    return partial(load_kernel(name), *arguments, **options)
