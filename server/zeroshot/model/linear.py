"""x @ weight + bias, with what comes right after it, in the memory layout that is fastest here.

On a CPU oneDNN reads weights that it has reordered once into its own blocked layout, and applies GELU or adds the
residual while the result is still in registers: the operators PyTorch's own compiler emits. Whether plain `F.linear`
is faster for a single row differs between processors, so it is measured once, when the model loads.
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS_HINT = 32  # what oneDNN lays the weight out for; within 3 % of the best hint from 1 to 512 rows on Zen 5
_FUSED_ACTIVATIONS = {"gelu_new": ("gelu", "tanh"), "gelu_pytorch_tanh": ("gelu", "tanh"), "gelu": ("gelu", "none")}

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": lambda hidden: F.gelu(hidden, approximate="tanh"),
    "gelu_pytorch_tanh": lambda hidden: F.gelu(hidden, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


class Linear:
    """weight: [in, out] as GPT-2 stores it; bias: [out] or None; both calls take [num_tokens, in]."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight.t().contiguous()  # [out, in]
        self.bias = bias

    def __call__(self, hidden: Tensor, activation: str | None = None) -> Tensor:
        """activation(hidden @ weight + bias): [num_tokens, out]."""
        output = F.linear(hidden, self.weight, self.bias)
        return output if activation is None else ACTIVATIONS[activation](output)

    def add_to(self, residual: Tensor, hidden: Tensor) -> Tensor:
        """residual + hidden @ weight + bias: [num_tokens, out]."""
        return residual + F.linear(hidden, self.weight, self.bias)


class PackedLinear(Linear):
    """The same through oneDNN. Keeps the plain weight only if that is faster for a single row."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, plain_for_one_row: bool) -> None:
        super().__init__(weight, bias)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, _ROWS_HINT)
        self.plain_for_one_row = plain_for_one_row
        if not plain_for_one_row:
            del self.weight

    def __call__(self, hidden: Tensor, activation: str | None = None) -> Tensor:
        if self.plain_for_one_row and len(hidden) == 1:
            return super().__call__(hidden, activation)
        kind, algorithm = _FUSED_ACTIVATIONS.get(activation or "", ("none", ""))
        output: Tensor = torch.ops.mkldnn._linear_pointwise(hidden, self.packed, self.bias, kind, [], algorithm)
        return output if activation is None or kind != "none" else ACTIVATIONS[activation](output)

    def add_to(self, residual: Tensor, hidden: Tensor) -> Tensor:
        if self.plain_for_one_row and len(hidden) == 1:
            return super().add_to(residual, hidden)
        output: Tensor = torch.ops.mkldnn._linear_pointwise.binary(hidden, residual, self.packed, self.bias, "add")
        return output


LinearFactory = Callable[[Tensor, Tensor | None], Linear]


def linear_factory(weight: Tensor) -> LinearFactory:
    """How to build the model's linear layers, decided on one of its weights: [in, out]."""
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if weight.device.type != "cpu" or not has_onednn or weight.dtype == torch.float16:
        return Linear
    row = torch.zeros(1, weight.shape[0], dtype=weight.dtype)
    packed = PackedLinear(weight, None, plain_for_one_row=False)
    plain_for_one_row = _seconds(Linear(weight, None), row) < 0.9 * _seconds(packed, row)
    return lambda weight, bias: PackedLinear(weight, bias, plain_for_one_row=plain_for_one_row)


def _seconds(linear: Linear, row: Tensor) -> float:
    """The best of a few runs over one row, each after the caches were swept as the rest of a step would sweep them."""
    sweep = torch.zeros(8 * 1024 * 1024)
    best = float("inf")
    for _ in range(5):
        sweep.add_(1.0)
        start = time.perf_counter()
        linear(row)
        best = min(best, time.perf_counter() - start)
    return best
