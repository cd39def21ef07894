"""The CPU backend by C++ kernels, tried on a tiny input before it is trusted; by PyTorch where they can't be had."""

import logging
from dataclasses import replace
from functools import cache

import torch

from zeroshot.model.int8_linear import quantize_weight
from zeroshot.model.layer_norm import Residual
from zeroshot.model.native_layers import NativeLayerNorm, native_layer_loop
from zeroshot.model.native_linear import native_linear_factory
from zeroshot.model.ops import Backend, Ops, plain_backend
from zeroshot_kernels.cpu import attention
from zeroshot_kernels.cpu.compiler import KernelsUnavailable
from zeroshot_kernels.cpu.layer_norm import layer_norm
from zeroshot_kernels.cpu.library import library
from zeroshot_kernels.decode_attention.reference import decode_attention_reference
from zeroshot_kernels.prefill_attention.reference import prefill_attention_reference

logger = logging.getLogger(__name__)

_TOLERANCE = 1e-4
"""On norm(kernel - expected) / norm(expected): catches a wrong result, not a rounding."""


def cpu_backend(
    *, dtype: torch.dtype, is_int8: bool, wants_kernels: bool, kv_dtype: torch.dtype | None = None
) -> Backend:
    """dtype: of everything but int8's linear layers; kv_dtype: of the KV cache, None: what the backend likes best."""
    backend = None
    if wants_kernels and dtype == torch.float32:
        reason = why_unavailable()
        if reason is None:
            backend = native_backend(is_int8=is_int8)
        else:
            logger.warning("slower: PyTorch runs in place of the C++ kernels: %s", reason)
    backend = backend or plain_backend(is_int8=is_int8)
    return backend if kv_dtype is None else replace(backend, kv_dtype=kv_dtype)


def native_backend(*, is_int8: bool) -> Backend:
    """With int8, keys and values are in fp16, where the processor converts it: half as much to read."""
    plain = plain_backend()
    return Backend(
        ops=Ops(
            kv_append=attention.kv_append,
            decode_attention=attention.decode_attention,
            prefill_attention=attention.prefill_attention,
        ),
        linear_factory=lambda _: native_linear_factory(is_int8=is_int8),
        layer_norm=NativeLayerNorm,
        embed=plain.embed,
        is_device=False,
        kv_block_size=plain.kv_block_size,
        name="C++ kernels",
        layer_loop=native_layer_loop,
        kv_dtype=torch.float16 if is_int8 and attention.converts_half() else None,
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


@torch.inference_mode()
def _errors() -> dict[str, float]:
    """Op -> relative error, on five tokens of a layer with 64 inputs and 40 outputs, and on two cached sequences."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(5, 64, generator=generator), torch.randn(64, 40, generator=generator)
    bias, residual = torch.randn(40, generator=generator), torch.randn(5, 40, generator=generator)
    quantized, scales = quantize_weight(weight.t())
    row_scales = hidden.abs().amax(1, keepdim=True) / 127
    rounded = (hidden / row_scales).round() * row_scales @ (quantized.t() * scales)
    int8_linear = native_linear_factory(is_int8=True)(weight, bias)
    found = {
        "float_linear": native_linear_factory(is_int8=False)(weight, bias).add_to(residual, hidden),
        "int8_linear": int8_linear.add_to(residual, hidden),
        "int8_linear of few": int8_linear.add_to(residual[:1], hidden[:1]),
        "gelu": native_linear_factory(is_int8=False)(weight, bias)(hidden, "gelu_new"),
    }
    expected = {
        "float_linear": hidden @ weight + bias + residual,
        "int8_linear": rounded + bias + residual,
        "int8_linear of few": (rounded + bias + residual)[:1],
        "gelu": torch.nn.functional.gelu(hidden @ weight + bias, approximate="tanh"),
    }
    # One output more than two tiles: what fills up the third must not be chosen.
    head, num_outputs = torch.randn(64, 33, generator=generator).abs(), 33
    hidden_or_less = torch.cat([hidden.abs(), -hidden.abs()])  # whose products are all above zero, or all below
    for name, is_int8 in (("float_greedy", False), ("int8_greedy", True)):
        lm_head = native_linear_factory(is_int8=is_int8)(head, None)
        tokens, are_finite = lm_head.greedy(hidden_or_less, num_outputs)
        found[name] = torch.stack([tokens, are_finite]).float()
        logits = lm_head(hidden_or_less)
        expected[name] = torch.stack([logits.argmax(1), torch.ones(10)]).float()
    norm = weight[:, 0].contiguous(), weight[:, 1].contiguous()
    found["layer_norm"] = layer_norm(hidden, *norm, 1e-5)
    expected["layer_norm"] = torch.nn.functional.layer_norm(hidden, (64,), *norm, 1e-5)
    query, *caches = (torch.randn(shape, generator=generator) for shape in ((9, 3, 32), *[(4, 16, 3, 32)] * 2))
    tables, lens = torch.tensor([[2, 0], [1, 1]]), [20, 3]
    for dtype, suffix in ((torch.float32, ""), (torch.float16, " over float16")):
        keys, values = (cache.to(dtype) for cache in caches)
        attention.kv_append(query[:2], query[2:4], torch.tensor([37, 4]), keys, values)
        decodes = (query[:2], keys, values, tables, lens, 0.2)
        found[f"decode_attention{suffix}"] = attention.decode_attention(*decodes)
        expected[f"decode_attention{suffix}"] = decode_attention_reference(*decodes)
        prefills = (query, keys, values, tables, [7, 2], lens, 0.2)
        found[f"prefill_attention{suffix}"] = attention.prefill_attention(*prefills)
        expected[f"prefill_attention{suffix}"] = prefill_attention_reference(*prefills)
        found[f"kv_append{suffix}"] = keys.view(-1, 3, 32)[[37, 4]].float()
        expected[f"kv_append{suffix}"] = query[:2].to(dtype).float()
    return {name: _relative_error(found[name], expected[name]) for name in found}


def _relative_error(found: Residual, expected: Residual) -> float:
    if not isinstance(found, torch.Tensor) or not isinstance(expected, torch.Tensor):
        raise TypeError("a CPU's residual is a tensor")
    return float((found.double() - expected.double()).norm() / expected.double().norm())
