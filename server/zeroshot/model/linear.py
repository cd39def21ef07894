"""x @ weight + bias, with what comes right after it, in the memory layout that is fastest here.

On a CPU oneDNN reads weights that it has reordered once into its own blocked layout, and applies GELU or adds the
residual while the result is still in registers: the operators PyTorch's own compiler emits. Whether plain `F.linear`
is faster for a single row differs between processors, so it is measured when the model loads.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshot.model.layer_norm import PendingSum, Residual

_ROWS_HINT = 32  # what oneDNN lays the weight out for; within 3 % of the best hint from 1 to 512 rows on Zen 5
_TIMED_RUNS = 7
_CLEARLY_FASTER = 0.85
TANH_GELUS = ("gelu_new", "gelu_pytorch_tanh")
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

    def add_to(self, residual: Tensor, hidden: Tensor) -> Residual:
        """residual + hidden @ weight + bias: [num_tokens, out]."""
        return residual + F.linear(hidden, self.weight, self.bias)

    def in_float32(self, hidden: Tensor) -> Tensor:
        """hidden @ weight: [num_tokens, out] float32, for logits."""
        return self(hidden).float()

    def greedy(self, hidden: Tensor, num_outputs: int) -> tuple[Tensor, Tensor]:
        """Which of each row's first outputs is the largest, [num_tokens] int64, and whether all are finite, bool."""
        logits = self.in_float32(hidden)[:, :num_outputs]
        return logits.argmax(-1), torch.isfinite(logits.sum(-1))


class DeferredLinear(Linear):
    """For GPUs: leaves the residual to the LayerNorm that follows, and bias and GELU to a kernel of their own."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, bias_gelu: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(weight, bias)
        self._bias_gelu = bias_gelu

    def __call__(self, hidden: Tensor, activation: str | None = None) -> Tensor:
        if activation in TANH_GELUS and self.bias is not None:
            return self._bias_gelu(F.linear(hidden, self.weight), self.bias)
        return super().__call__(hidden, activation)

    def add_to(self, residual: Tensor, hidden: Tensor) -> Residual:
        return PendingSum(residual, F.linear(hidden, self.weight, self.bias))

    def in_float32(self, hidden: Tensor) -> Tensor:
        """Not rounded to the model's dtype on the way: cuBLAS sums in float32 anyway."""
        if hidden.dtype == torch.float32 or hidden.device.type != "cuda":
            return F.linear(hidden.float(), self.weight.float())
        return torch.mm(hidden, self.weight.t(), out_dtype=torch.float32)


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

    def add_to(self, residual: Tensor, hidden: Tensor) -> Residual:
        if self.plain_for_one_row and len(hidden) == 1:
            return super().add_to(residual, hidden)
        output: Tensor = torch.ops.mkldnn._linear_pointwise.binary(hidden, residual, self.packed, self.bias, "add")
        return output


LinearFactory = Callable[[Tensor, Tensor | None], Linear]


def deferred_linear_factory(bias_gelu: Callable[[Tensor, Tensor], Tensor]) -> LinearFactory:
    return partial(DeferredLinear, bias_gelu=bias_gelu)


def linear_factory(lm_head: Tensor) -> LinearFactory:
    """How to build the model's linear layers, decided on the largest of its weights: [n_embd, vocab_size]."""
    if lm_head.device.type != "cpu" or not _can_pack(lm_head.dtype):
        return Linear
    plain, packed = Linear(lm_head, None), PackedLinear(lm_head, None, plain_for_one_row=False)
    row = torch.zeros(1, lm_head.shape[0], dtype=lm_head.dtype)
    plain_s = packed_s = float("inf")
    for _ in range(_TIMED_RUNS):  # taken in turn, so that a busy moment of the machine hits both
        plain_s = min(plain_s, _seconds(plain, row))
        packed_s = min(packed_s, _seconds(packed, row))
    return partial(PackedLinear, plain_for_one_row=plain_s < _CLEARLY_FASTER * packed_s)


def _can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN has a layout of its own for weights of this dtype on this processor."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:  # refused without AVX-512 or AVX-NE-CONVERT
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def _seconds(linear: Linear, row: Tensor) -> float:
    start = time.perf_counter()
    linear(row)
    return time.perf_counter() - start
