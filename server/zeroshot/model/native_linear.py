"""Linear layers by this project's C++ kernels, which add bias, GELU and the residual before a sum leaves its register.

Each token's sums run in one order whatever its batch, so a request gets the same bits alone and among others.
"""

from functools import partial

from torch import Tensor

from zeroshot.model.int8_linear import Int8Linear, quantize_weight
from zeroshot.model.linear import ACTIVATIONS, TANH_GELUS, Linear, LinearFactory
from zeroshot_kernels.cpu.huge_pages import HugePages
from zeroshot_kernels.cpu.layers import LinearWeights
from zeroshot_kernels.cpu.linear import float_greedy, float_linear, int8_greedy, int8_linear, pack_float, pack_int8


class NativeLinear(Linear):
    """`Linear` in float32. weight: [in, out]; bias: [out] or None."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, pages: HugePages) -> None:  # keeps no plain weight
        self.num_inputs, self.num_outputs = weight.shape
        self.packed = pack_float(weight.t(), pages)
        self.bias = bias

    @property
    def weights(self) -> LinearWeights:
        return LinearWeights(self.packed, self.bias, self.num_inputs, self.num_outputs)

    def __call__(self, hidden: Tensor, activation: str | None = None) -> Tensor:
        has_gelu = activation in TANH_GELUS
        output = float_linear(hidden, self.packed, self.num_outputs, self.bias, None, has_gelu=has_gelu)
        return output if activation is None or has_gelu else ACTIVATIONS[activation](output)

    def add_to(self, residual: Tensor, hidden: Tensor) -> Tensor:
        return float_linear(hidden, self.packed, self.num_outputs, self.bias, residual, has_gelu=False)

    def greedy(self, hidden: Tensor, num_outputs: int) -> tuple[Tensor, Tensor]:
        return float_greedy(hidden, self.packed, num_outputs)


class NativeInt8Linear(Int8Linear):
    """`Int8Linear` with the same rounded weights."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, pages: HugePages) -> None:
        self.num_inputs, self.num_outputs = weight.shape
        self.packed = pack_int8(*quantize_weight(weight.t()), pages)
        self.bias = bias

    @property
    def weights(self) -> LinearWeights:
        return LinearWeights(self.packed, self.bias, self.num_inputs, self.num_outputs)

    def __call__(self, hidden: Tensor, activation: str | None = None) -> Tensor:
        has_gelu = activation in TANH_GELUS
        output = int8_linear(hidden, self.packed, self.num_outputs, self.bias, None, has_gelu=has_gelu)
        return output if activation is None or has_gelu else ACTIVATIONS[activation](output)

    def add_to(self, residual: Tensor, hidden: Tensor) -> Tensor:
        return int8_linear(hidden, self.packed, self.num_outputs, self.bias, residual, has_gelu=False)

    def greedy(self, hidden: Tensor, num_outputs: int) -> tuple[Tensor, Tensor]:
        return int8_greedy(hidden, self.packed, num_outputs)


def native_linear_factory(*, is_int8: bool) -> LinearFactory:
    """All layers of a model in one room of large pages."""
    return partial(NativeInt8Linear if is_int8 else NativeLinear, pages=HugePages())
