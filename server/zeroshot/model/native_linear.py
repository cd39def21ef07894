"""Linear layers by this project's C++ kernels, which add bias, GELU and the residual before a sum leaves its register.

Each token's sums run in one order whatever its batch, so a request gets the same bits alone and among others.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

from torch import Tensor

from zeroshot.model.int8_linear import quantize_weight
from zeroshot.model.linear import ACTIVATIONS, TANH_GELUS, Linear, LinearFactory
from zeroshot_kernels.cpu.huge_pages import HugePages
from zeroshot_kernels.cpu.layers import LinearWeights
from zeroshot_kernels.cpu.linear import (
    Int8Weight,
    bf16_greedy,
    bf16_linear,
    float_greedy,
    float_linear,
    int8_greedy,
    int8_linear,
    pack_bf16,
    pack_float,
    pack_int8,
)


class _Kernels(NamedTuple):
    """`linear` and `greedy` take weights as `pack` has laid them out."""

    pack: Callable[[Tensor, HugePages], Any]
    linear: Callable[..., Tensor]
    greedy: Callable[..., tuple[Tensor, Tensor]]


def _quantize_and_pack(weight: Tensor, pages: HugePages) -> Int8Weight:
    return pack_int8(*quantize_weight(weight), pages)


WeightFormat = Literal["fp32", "bf16", "int8"]
"""What weights of linear layers are kept in. Activations come and go in fp32."""

_KERNELS: dict[WeightFormat, _Kernels] = {
    "fp32": _Kernels(pack_float, float_linear, float_greedy),
    "bf16": _Kernels(pack_bf16, bf16_linear, bf16_greedy),
    "int8": _Kernels(_quantize_and_pack, int8_linear, int8_greedy),
}
FORMATS = tuple(_KERNELS)


class NativeLinear(Linear):
    """weight: [in, out] float32; bias: [out] or None. In int8, rounded as `Int8Linear` rounds it."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, kernels: _Kernels, pages: HugePages) -> None:
        # Not Linear's: the plain weight is not kept.
        self.num_inputs, self.num_outputs = weight.shape
        self.packed = kernels.pack(weight.t(), pages)
        self.bias = bias
        self._kernels = kernels

    @property
    def weights(self) -> LinearWeights:
        return LinearWeights(self.packed, self.bias, self.num_inputs, self.num_outputs)

    def __call__(self, hidden: Tensor, activation: str | None = None) -> Tensor:
        has_gelu = activation in TANH_GELUS
        output = self._kernels.linear(hidden, self.packed, self.num_outputs, self.bias, None, has_gelu=has_gelu)
        return output if activation is None or has_gelu else ACTIVATIONS[activation](output)

    def add_to(self, residual: Tensor, hidden: Tensor) -> Tensor:
        return self._kernels.linear(hidden, self.packed, self.num_outputs, self.bias, residual, has_gelu=False)

    def greedy(self, hidden: Tensor, num_outputs: int) -> tuple[Tensor, Tensor]:
        return self._kernels.greedy(hidden, self.packed, num_outputs)


def native_linear(
    weight: Tensor, bias: Tensor | None, weight_format: WeightFormat, *, pages: HugePages | None = None
) -> NativeLinear:
    """pages: where the packed weight goes; None: into pages of its own."""
    return NativeLinear(weight, bias, kernels=_KERNELS[weight_format], pages=pages or HugePages())


def native_linear_factory(weight_format: WeightFormat) -> LinearFactory:
    """All layers of a model share one room of large pages."""
    return partial(native_linear, weight_format=weight_format, pages=HugePages())
