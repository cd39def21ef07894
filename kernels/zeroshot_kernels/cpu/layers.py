"""All layers of a model by one call to the C++ kernels. One by one they take GPT-2 124M 96 calls."""

import ctypes
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zeroshot_kernels.cpu.attention import is_half
from zeroshot_kernels.cpu.library import library
from zeroshot_kernels.cpu.linear import GROUP, Int8Weight, whole_registers


class LinearWeights(NamedTuple):
    weight: Tensor | Int8Weight  # packed: in float32, bfloat16 or int8
    bias: Tensor | None  # [out]
    num_inputs: int
    num_outputs: int


class NormWeights(NamedTuple):
    weight: Tensor  # [n_embd]
    bias: Tensor  # [n_embd]
    eps: float


class LayerWeights(NamedTuple):
    ln_1: NormWeights
    ln_2: NormWeights
    attn: LinearWeights
    attn_proj: LinearWeights
    fc: LinearWeights
    fc_proj: LinearWeights
    scale: float  # of attention


class _Norm(ctypes.Structure):
    _fields_ = (("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("eps", ctypes.c_float))


_FORMATS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


class _Linear(ctypes.Structure):
    _fields_ = (
        ("format", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("weight", "scales", "offsets", "bias")),
        *((name, ctypes.c_int64) for name in ("num_inputs", "num_outputs")),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _Norm) for name in ("ln_1", "ln_2")),
        *((name, _Linear) for name in ("attn", "attn_proj", "fc", "fc_proj")),
        ("scale", ctypes.c_float),
    )


class _Sequences(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("block_tables", "query_lens", "context_lens")),
        *((name, ctypes.c_int64) for name in ("num_seqs", "max_blocks")),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        ("slots", ctypes.c_void_p),
        ("decodes", _Sequences),
        ("prefills", _Sequences),
        ("num_tokens", ctypes.c_int64),
    )


class _Cache(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("key", "value")),
        *((name, ctypes.c_int64) for name in ("layer_stride", "n_head", "head_dim", "block_size", "is_half")),
    )


class _Workspace(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_void_p)
        for name in ("normed", "qkv", "attended", "inner", "rounded_rows", "rounded_scales")
    )  # fmt: skip


class Layers:
    """`run` computes what the layers would one after the other, to the last bit, and writes their keys and values.

    Every MLP has GPT-2's GELU, the one with tanh.
    """

    def __init__(self, layers: Sequence[LayerWeights]) -> None:
        self._weights = list(layers)  # the structures below hold addresses only
        self._layers = (_Layer * len(layers))(*map(_layer, layers))
        self._n_embd, self._inner = layers[0].fc.num_inputs, layers[0].fc.num_outputs

    def run(
        self,
        stream: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
        slot_mapping: Tensor,
        block_tables: Tensor,
        query_lens: list[int],
        context_lens: list[int],
        num_decodes: int,
    ) -> None:
        """stream: [num_tokens, n_embd] float32, contiguous, changed in place; caches: [n_layer, num_blocks, block_size,
        n_head, head_dim] float32 or float16, contiguous; slot_mapping: [num_tokens] int64; block_tables: [num_seqs,
        max_blocks] int64, contiguous; the first `num_decodes` sequences have one token each.
        """
        num_seqs, num_tokens = len(query_lens), len(stream)
        lens = ctypes.c_int64 * num_seqs
        queries, contexts = lens(*query_lens), lens(*context_lens)
        max_blocks, size = block_tables.shape[1], ctypes.sizeof(ctypes.c_int64)

        def sequences(first: int, count: int) -> _Sequences:
            addresses = (
                block_tables.data_ptr() + first * max_blocks * size,
                ctypes.addressof(queries) + first * size,
                ctypes.addressof(contexts) + first * size,
            )
            return _Sequences(*addresses, count, max_blocks)

        decodes, prefills = sequences(0, num_decodes), sequences(num_decodes, num_seqs - num_decodes)
        step = _Step(slot_mapping.data_ptr(), decodes, prefills, num_tokens)
        _, num_blocks, block_size, n_head, head_dim = key_cache.shape
        layer_stride = num_blocks * block_size * n_head * head_dim
        pages = key_cache.data_ptr(), value_cache.data_ptr()
        cache = _Cache(*pages, layer_stride, n_head, head_dim, block_size, is_half(key_cache))
        room, addresses = self._room(num_tokens)
        library().zeroshot_layers(
            self._layers, len(self._layers), stream.data_ptr(),
            ctypes.byref(step), ctypes.byref(cache), ctypes.byref(_Workspace(*addresses)),
        )  # fmt: skip
        del room  # until here the kernels have worked in it

    def _room(self, num_tokens: int) -> tuple[Tensor, Iterable[int]]:
        """A tensor, and where in it each part of `_Workspace` begins. Every part starts on a line of the cache."""
        widths = [4 * self._n_embd, 4 * 3 * self._n_embd, 4 * self._n_embd, 4 * self._inner]
        widths += [2 * max(self._n_embd, self._inner) + GROUP, 4]  # at most two bytes an input; a float for each row
        sizes = [-(-whole_registers(num_tokens) * width // 64) * 64 for width in widths]
        room = torch.empty(sum(sizes) + 64, dtype=torch.uint8)
        start = -(-room.data_ptr() // 64) * 64
        return room, [start + sum(sizes[:i]) for i in range(len(sizes))]


def _layer(layer: LayerWeights) -> _Layer:
    norms = [_Norm(norm.weight.data_ptr(), norm.bias.data_ptr(), norm.eps) for norm in (layer.ln_1, layer.ln_2)]
    linears = [_linear(linear) for linear in (layer.attn, layer.attn_proj, layer.fc, layer.fc_proj)]
    return _Layer(*norms, *linears, layer.scale)


def _linear(linear: LinearWeights) -> _Linear:
    packed = linear.weight
    weight, *rounding = packed if isinstance(packed, Int8Weight) else (packed,)
    addresses = [weight.data_ptr(), *(tensor.data_ptr() for tensor in rounding)] + [None] * (2 - len(rounding))
    bias = None if linear.bias is None else linear.bias.data_ptr()
    return _Linear(_FORMATS[weight.dtype], *addresses, bias, linear.num_inputs, linear.num_outputs)
