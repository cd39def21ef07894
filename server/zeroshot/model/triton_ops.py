"""The ops as Triton kernels, each tried on its device before it is trusted. Only a GPU's model imports this.

A kernel may fail to compile (no C compiler for Triton's launcher, a GPU it does not know, too little shared memory) or
compile to something wrong. Both show on a tiny input: its PyTorch reference then takes its place, with a warning.
"""

import importlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from zeroshot.model.config import GPT2Config
from zeroshot.model.ops import Ops

logger = logging.getLogger(__name__)

PROBE_LENS = (300, 70)
"""Contexts of the sequences that ops are tried on: several splits, pages and loads, the last of each in part."""
PROBE_BLOCK_SIZE = 64
PROBE_BLOCKS = 8
_PROBE_VOCAB_SIZE = 1500
"""More than one of the tiles that are worked on at once, and a part of one."""
TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""On norm(kernel - reference) / norm(reference): catches a wrong result, not a rounding."""

Probe = Callable[[Callable[..., Any]], list[Tensor]]
"""Calls an op, kernel or reference, on the same tiny inputs. Returns what it wrote."""


def triton_ops(
    config: GPT2Config,
    *,
    max_num_seqs: int,
    dtype: torch.dtype,
    device: torch.device,
    kv_dtype: torch.dtype | None = None,
) -> tuple[Ops, dict[str, str]]:
    """Every op, by its kernel if that works here, and op -> "triton" or "reference: " and the reason.

    Decode attention gets a workspace for `max_num_seqs` rows: captured graphs need it at an address that stays.
    """
    references = Ops()
    chosen: dict[str, Callable[..., Any]] = {}
    kernels: dict[str, str] = {}
    for name, probe in _probes(config, dtype, device, kv_dtype).items():
        reference = getattr(references, name)
        try:
            chosen[name] = load_kernel(name)
            error = relative_error(probe(chosen[name]), probe(reference))
            if not error <= TOLERANCES[dtype]:
                raise ArithmeticError(f"its result is off by {error:.1e}")
            kernels[name] = "triton"
        except Exception as error:  # whatever the compiler raises: the reference does the same work
            chosen[name] = reference
            kernels[name] = f"reference: {type(error).__name__}: {first_line(error)}"
    _warn(kernels)
    if kernels["decode_attention"] == "triton":
        workspace = importlib.import_module("zeroshot_kernels.decode_attention.kernel").DecodeWorkspace.allocate(
            max_num_seqs, config.n_head, config.head_dim, max_context_len(config), device
        )
        chosen["decode_attention"] = partial(chosen["decode_attention"], workspace=workspace)
    return Ops(**chosen), kernels


def load_kernel(name: str) -> Callable[..., Any]:
    """The launcher of an op. Importing it imports Triton."""
    launcher: Callable[..., Any] = getattr(importlib.import_module(f"zeroshot_kernels.{name}.kernel"), name)
    return launcher


def relative_error(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest norm(found - expected) / norm(expected) of any output."""
    pairs = zip(found, expected, strict=True)
    return max(float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-9)) for a, b in pairs)


def _warn(kernels: dict[str, str]) -> None:
    failed = {name: status for name, status in kernels.items() if status != "triton"}
    if failed:
        reasons = "; ".join(f"{name} ({status.removeprefix('reference: ')})" for name, status in failed.items())
        logger.warning("slow: PyTorch references run in place of kernels that do not work here: %s", reasons)


def first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")[:200]


def max_context_len(config: GPT2Config) -> int:
    """With room for a last block, of up to 256 tokens, that a context fills only in part."""
    return config.n_positions + 256


def probe_scales(kv_dtype: torch.dtype | None, n_head: int, device: torch.device) -> tuple[Tensor, ...]:
    """Of keys and values of about 1, if the cache is in FP8: a power of two for each head."""
    if kv_dtype != torch.float8_e4m3fn:
        return ()
    heads = torch.arange(n_head, device=device)
    return torch.exp2(-5.0 + heads % 3), torch.exp2(-4.0 - heads % 3)


def probe_tables(device: torch.device) -> Tensor:
    """The pages of both sequences, in no order; what a sequence has no use for is another's."""
    return torch.tensor([[2, 0, 7, 3, 5], [6, 1, 2, 2, 2]], dtype=torch.int32, device=device)


def _probes(
    config: GPT2Config, dtype: torch.dtype, device: torch.device, kv_dtype: torch.dtype | None
) -> dict[str, Probe]:
    """Two sequences, one with 21 new tokens and one with two; heads and rows as wide as the model's."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    def ints(*values: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    n_head, n_embd = config.n_head, config.n_embd
    query, key, value = randn(23, 3, n_head, config.head_dim).unbind(1)
    memory = randn(PROBE_BLOCKS, n_head, 2, PROBE_BLOCK_SIZE, config.head_dim).to(kv_dtype or dtype)
    caches = memory.permute(2, 0, 3, 1, 4)
    scales = probe_scales(kv_dtype, n_head, device)
    tables, lens, query_lens = probe_tables(device), ints(*PROBE_LENS), ints(21, 2)
    hidden, lm_head = randn(2, n_embd), randn(_PROBE_VOCAB_SIZE, n_embd)
    weight, bias = randn(n_embd), randn(n_embd)
    inner, inner_bias = randn(2, config.n_inner), randn(config.n_inner)
    many = randn(64, n_embd)
    logits = 3 * randn(2, _PROBE_VOCAB_SIZE).float()
    off, one, two = torch.zeros(2, device=device), torch.ones(2, device=device), ints(3, 5, dtype=torch.int64)

    def kv_append(op: Callable[..., Any]) -> list[Tensor]:
        written = caches.clone()
        op(key[:2], value[:2], ints(170, 5), *written, *scales)
        return [written.to(dtype)]

    def logit_adjustment(op: Callable[..., Any]) -> list[Tensor]:
        written = logits.clone()
        op(written, ints(0, 1, -1), ints(7, 1499, 0), off.new_tensor([2.0, 0, 0]), ints(1, 1, 0) > 0, ints(20, 3, 3),
           one + 0.5, one, one)  # fmt: skip
        return [written]

    def advance(op: Callable[..., Any]) -> list[Tensor]:
        longs = ints(*range(20), dtype=torch.int64).view(5, 4).clone()
        words = ints(*range(8)).view(2, 4).clone()
        table = ints(*range(100)).view(4, 25)
        op(two, ints(1, 0) > 0, None, *longs[[4, 0, 1, 2]], words[0], table, words[1], longs[3])
        return [longs, words]

    def lm_head_sampling(op: Callable[..., Any]) -> list[Tensor]:
        """Other numbers of rows are other tiles. Greedy: a draw may turn on a rounding."""
        outputs: list[Tensor] = []
        for num_rows in (1, 2, 33, 64):
            zeros = torch.zeros(num_rows, device=device)
            outputs += op(many[:num_rows], lm_head, zeros, *[zeros.long()] * 3, with_logprobs=False)[::2]
        return outputs

    def sampling(op: Callable[..., Any]) -> list[Tensor]:
        """As the engine draws: with filters and without, which are kernels of their own."""
        filters = ((ints(5, 5), one, off), (None, None, None))
        return [
            tensor for values in filters for tensor in op(logits, one, *values, two, two, two, with_logprobs=False)[::2]
        ]

    return {
        "kv_append": kv_append,
        "decode_attention": lambda op: [op(query[:2], *caches, tables, lens, 0.125, *scales)],
        "prefill_attention": lambda op: [op(query, *caches, tables, query_lens, lens, 0.125, *scales)],
        "layer_norm": lambda op: [*op(hidden, hidden, weight, bias, 1e-5)],
        "bias_gelu": lambda op: [op(inner, inner_bias)],
        "lm_head_sampling": lm_head_sampling,
        "sampling": sampling,
        "logprobs": lambda op: [*op(hidden, lm_head, two)],
        "logit_adjustment": logit_adjustment,
        "advance": advance,
    }
