"""The CPU backend by C++ kernels, tried on a tiny input before it is trusted; by PyTorch where they can't be had."""

import itertools
import logging
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshot.model.int8_linear import MAX_ACTIVATION, quantize_weight
from zeroshot.model.native_layers import NativeLayerNorm, native_layer_loop
from zeroshot.model.native_linear import FORMATS, WeightFormat, native_linear, native_linear_factory
from zeroshot.model.ops import Backend, Ops, SamplingKernels, plain_backend
from zeroshot_kernels.cpu import attention
from zeroshot_kernels.cpu.compiler import KernelsUnavailable
from zeroshot_kernels.cpu.draw import draw
from zeroshot_kernels.cpu.layer_norm import layer_norm
from zeroshot_kernels.cpu.library import library
from zeroshot_kernels.cpu.linear import TILE
from zeroshot_kernels.cpu.logprobs import logprobs
from zeroshot_kernels.decode_attention.reference import decode_attention_reference
from zeroshot_kernels.prefill_attention.reference import prefill_attention_reference
from zeroshot_kernels.sampling.reference import Adjustment, filter_candidates, sampling_reference

logger = logging.getLogger(__name__)

_TOLERANCE = 1e-4
"""On norm(kernel - expected) / norm(expected): catches a wrong result, not a rounding."""


def are_available() -> bool:
    """Whether the kernels are here, and right; if not, the log says why."""
    reason = why_unavailable()
    if reason is not None:
        logger.warning("slower: PyTorch runs in place of the C++ kernels: %s", reason)
    return reason is None


def native_backend(weight_format: WeightFormat) -> Backend:
    """For weights loaded in fp32. Beside rounded ones, keys and values are in fp16: half as much to read, where the
    processor converts it.
    """
    plain = plain_backend()
    return Backend(
        ops=Ops(
            kv_append=attention.kv_append,
            decode_attention=attention.decode_attention,
            prefill_attention=attention.prefill_attention,
        ),
        linear_factory=lambda _: native_linear_factory(weight_format),
        layer_norm=NativeLayerNorm,
        embed=plain.embed,
        is_device=False,
        kv_block_size=plain.kv_block_size,
        name="C++ kernels",
        layer_loop=native_layer_loop,
        sampling_kernels=SamplingKernels(draw, logprobs),
        kv_dtype=torch.float16 if weight_format != "fp32" and attention.converts_half() else None,
    )


@cache
def why_unavailable() -> str | None:
    """None: the kernels are here, and right."""
    try:
        library()
    except KernelsUnavailable as error:
        return str(error)
    wrong = {name: error for name, error in _errors().items() if not error <= _TOLERANCE}
    return f"they are wrong on this processor: {wrong}" if wrong else None


Probe = tuple[str, Tensor, Tensor]
"""An op, what its kernel gives on a tiny input, and what is right."""


@torch.inference_mode()
def _errors() -> dict[str, float]:
    """Op -> norm(found - expected) / norm(expected)."""
    generator = torch.Generator().manual_seed(0)
    probes = itertools.chain(
        _linear_probes(generator),
        _greedy_probes(generator),
        _layer_norm_probes(generator),
        _attention_probes(generator),
        _draw_probes(generator),
        _logprobs_probes(generator),
    )
    return {op: float((a.double() - b.double()).norm() / b.double().norm()) for op, a, b in probes}


def _linear_probes(generator: torch.Generator) -> Iterator[Probe]:
    """Of more rows than a matrix register holds, and of one: int8 has other instructions for few rows."""
    hidden, weight = torch.randn(20, 64, generator=generator), torch.randn(64, 40, generator=generator)
    bias, residual = torch.randn(40, generator=generator), torch.randn(20, 40, generator=generator)
    float_linear = native_linear(weight, bias, "fp32")
    yield "float_linear", float_linear.add_to(residual, hidden), hidden @ weight + bias + residual
    gelu = F.gelu(hidden @ weight + bias, approximate="tanh")
    yield "gelu", float_linear(hidden, "gelu_new"), gelu

    exact = hidden.bfloat16().float()  # where the processor rounds the input, it need not
    expected = exact @ weight.bfloat16().float() + bias + residual
    yield "bf16_linear", native_linear(weight, bias, "bf16").add_to(residual, exact), expected

    quantized, scales = quantize_weight(weight.t())
    row_scales = hidden.abs().amax(1, keepdim=True) / MAX_ACTIVATION
    rounded = (hidden / row_scales).round() * row_scales @ (quantized.t() * scales)
    expected = rounded + bias + residual
    int8_linear = native_linear(weight, bias, "int8")
    yield "int8_linear", int8_linear.add_to(residual, hidden), expected
    yield "int8_linear of few", int8_linear.add_to(residual[:1], hidden[:1]), expected[:1]


def _greedy_probes(generator: torch.Generator) -> Iterator[Probe]:
    """One output more than two tiles: the zeros that fill up the third tile must not be chosen."""
    num_outputs = 2 * TILE + 1
    weight = torch.randn(64, num_outputs, generator=generator).abs()
    hidden = torch.randn(10, 64, generator=generator).abs()
    hidden = torch.cat([hidden, -hidden])  # all logits of a row are above zero, or all below
    for weight_format in FORMATS:
        lm_head = native_linear(weight, None, weight_format)
        found = torch.stack(lm_head.greedy(hidden, num_outputs))
        yield f"{weight_format}_greedy", found, torch.stack([lm_head(hidden).argmax(1), torch.ones(len(hidden))])


def _layer_norm_probes(generator: torch.Generator) -> Iterator[Probe]:
    hidden, weight, bias = (torch.randn(shape, generator=generator) for shape in ((5, 64), (64,), (64,)))
    yield "layer_norm", layer_norm(hidden, weight, bias, 1e-5), F.layer_norm(hidden, (64,), weight, bias, 1e-5)


def _attention_probes(generator: torch.Generator) -> Iterator[Probe]:
    """Two sequences in a cache of four pages, whose order is not that of the pages."""
    query, *caches = (torch.randn(shape, generator=generator) for shape in ((9, 3, 32), *[(4, 16, 3, 32)] * 2))
    tables, lens, slots = torch.tensor([[2, 0], [1, 1]]), [20, 3], torch.tensor([37, 4])
    for dtype, suffix in ((torch.float32, ""), (torch.float16, " over float16")):
        keys, values = (cache.to(dtype) for cache in caches)
        attention.kv_append(query[:2], query[2:4], slots, keys, values)
        yield f"kv_append{suffix}", keys.view(-1, 3, 32)[slots].float(), query[:2].to(dtype).float()
        decodes = (query[:2], keys, values, tables, lens, 0.2)
        yield f"decode_attention{suffix}", attention.decode_attention(*decodes), decode_attention_reference(*decodes)
        prefills = (query, keys, values, tables, [7, 2], lens, 0.2)
        found, expected = attention.prefill_attention(*prefills), prefill_attention_reference(*prefills)
        yield f"prefill_attention{suffix}", found, expected


def _draw_probes(generator: torch.Generator) -> Iterator[Probe]:
    logits, temperatures = torch.randn(5, 100, generator=generator), torch.linspace(0.5, 2.0, 5)
    keys = torch.randint(1, 1000, (3, 5), generator=generator)
    on = (
        torch.tensor([0, 7, 0, 40, 0]),
        torch.tensor([1.0, 1.0, 0.5, 0.9, 1.0]),
        torch.tensor([0.0, 0.0, 0.0, 0.1, 0.2]),
    )
    for op, filters in (("draw", (None, None, None)), ("filtered draw", on)):
        expected, _, _ = sampling_reference(logits, temperatures, *filters, *keys)
        found, _ = draw(logits, None, temperatures, *filters, *keys)
        yield op, found, expected
    # Only one token is left to each row: the most typical one.
    scaled, typical_ps = logits / temperatures[:, None], torch.full((5,), 1e-6)
    most_typical = [filter_candidates(row, top_k=0, top_p=1.0, min_p=0.0, typical_p=1e-6) for row in scaled]
    found, _ = draw(logits, None, temperatures, None, None, None, *keys, typical_ps=typical_ps)
    yield "typical draw", found, torch.cat(most_typical)
    # By a bias, penalties and what is forbidden, and by a mask.
    biased = Adjustment({7: 300.0}, (9, 9), 1, 1.5, 100.0, 100.0, forbidden_ids=(3,))
    logits[:, 9] = 200.0
    logits[:, 3] = 250.0
    masked = Adjustment(is_allowed=np.arange(100) == 5)
    found, _ = draw(logits, [biased, masked, None, biased, masked], temperatures, None, None, None, *keys)
    yield "adjusted draw", found, torch.tensor([7, 5, 3, 7, 5])


def _logprobs_probes(generator: torch.Generator) -> Iterator[Probe]:
    logits, targets = torch.randn(5, 100, generator=generator), torch.arange(5)
    expected = logits.log_softmax(1)
    ranks = (expected > expected.gather(1, targets[:, None])).sum(1, keepdim=True) + 1
    best = expected.topk(3)
    found, ids = logprobs(logits, targets, 3)
    yield "logprobs", found, torch.cat([expected.gather(1, targets[:, None]), best.values], 1)
    yield "logprobs' ids", ids, torch.cat([ranks, best.indices], 1)
