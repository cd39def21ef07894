"""Linear layers in 8-bit integers, for CPUs: a quarter of the bytes that a token has to read.

Weights are rounded once, with a scale for each output; activations as they come, with a scale for each token, so that
no token's rounding depends on its neighbours in the batch. Products are added up in int32, exactly, by whichever
library is fastest here: every one of them gives the same integers.

Without VNNI, x86 adds pairs of u8 * s8 products in 16 bits and saturates (`vpmaddubsw`). So a row's scale is such that
the sizes of two neighbouring weights never sum to more than 128: 255 * 128 fits. Weights of that size are seldom
neighbours, so this costs about half a bit of the eight, where 7-bit weights would cost a whole one.
"""

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshot.errors import SettingsError
from zeroshot.model.linear import ACTIVATIONS, Linear, LinearFactory

MAX_WEIGHT = 127
MAX_WEIGHT_PAIR = 128
"""The most that |w[2k]| + |w[2k + 1]| may be, along the inputs of an output."""
MAX_ACTIVATION = 127
ZERO_POINT = 128
"""Activations are stored as unsigned bytes: value + 128."""

_SMALLEST_SCALE = 1e-30  # a row of zeros stays zeros


class Int8Linear(Linear):
    """`Linear` with rounded weights. weight: [in, out] float32; bias: [out] float32 or None."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:  # keeps no plain weight: so not Linear's
        quantized, scales = quantize_weight(weight.t())
        self._multiply = _Fbgemm(quantized, scales) if _prefers_fbgemm() else _OneDNN(quantized, scales)
        self.bias = bias

    def __call__(self, hidden: Tensor, activation: str | None = None) -> Tensor:
        """activation(hidden @ weight + bias): [num_tokens, out]."""
        product, scales = self._product(hidden)
        output = product.mul_(scales) if self.bias is None else torch.addcmul(self.bias, product, scales)
        return output if activation is None else ACTIVATIONS[activation](output)

    def add_to(self, residual: Tensor, hidden: Tensor) -> Tensor:
        """residual + hidden @ weight + bias: [num_tokens, out]."""
        product, scales = self._product(hidden)
        output = torch.addcmul(residual, product, scales)
        return output if self.bias is None else output.add_(self.bias)

    def in_float32(self, hidden: Tensor) -> Tensor:
        return self(hidden)

    def _product(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """What to multiply with what for hidden @ weight: [num_tokens, out], and each row's scale [num_tokens, 1]."""
        scales = torch.linalg.vector_norm(hidden, torch.inf, dim=-1, keepdim=True)
        scales = scales.clamp_(min=_SMALLEST_SCALE).mul_(1 / MAX_ACTIVATION)
        return self._multiply(hidden / scales), scales


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight: [out, in] float32 -> int8 [out, in] within MAX_WEIGHT and MAX_WEIGHT_PAIR, and each row's scale [out]."""
    sizes = weight.abs()
    pairs = F.pad(sizes, (0, sizes.shape[1] % 2)).reshape(len(weight), -1, 2).sum(-1)
    # One less than the most, because rounding may add a half to each of the two.
    scales = torch.maximum(sizes.amax(1) / MAX_WEIGHT, pairs.amax(1) / (MAX_WEIGHT_PAIR - 1)).clamp_(_SMALLEST_SCALE)
    quantized = (weight / scales[:, None]).round_().to(torch.int8)
    return quantized.contiguous(), scales  # of a transposed tensor oneDNN takes the numbers in the wrong order


def int8_linear_factory(lm_head: Tensor) -> LinearFactory:
    """Raises SettingsError where no int8 library is at hand."""
    if lm_head.device.type != "cpu" or not {"fbgemm", "onednn"} & _libraries():
        raise SettingsError("dtype int8 needs g++ or an x86 CPU; without them this device runs fp32 or bf16.")
    return Int8Linear


class _Fbgemm:
    """FBGEMM rounds the activations itself, while it packs them."""

    def __init__(self, quantized: Tensor, scales: Tensor) -> None:
        torch.backends.quantized.engine = "fbgemm"  # what linear_prepack packs for
        no_zero_points = torch.zeros(len(scales), dtype=torch.int64)
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # tensors of this kind will be removed
            weight = torch._make_per_channel_quantized_tensor(quantized, scales.double(), no_zero_points, 0)
        self._packed = torch.ops.quantized.linear_prepack(weight, None)

    def __call__(self, hidden: Tensor) -> Tensor:
        """hidden: [num_tokens, in] float32, within MAX_ACTIVATION -> round(hidden) @ weight, [num_tokens, out]."""
        multiply: Any = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        output: Tensor = multiply(hidden, 1.0, ZERO_POINT, self._packed)
        return output


class _OneDNN:
    def __init__(self, quantized: Tensor, scales: Tensor) -> None:
        self._packed = torch.ops.onednn.qlinear_prepack(quantized, [32, quantized.shape[1]])
        self._scales = scales
        self._no_zero_points = torch.zeros(len(scales), dtype=torch.int64)

    def __call__(self, hidden: Tensor) -> Tensor:
        """hidden: [num_tokens, in] float32, within MAX_ACTIVATION -> round(hidden) @ weight, [num_tokens, out]."""
        rounded = hidden.round().add_(ZERO_POINT).to(torch.uint8)
        output: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, ZERO_POINT, self._packed, self._scales, self._no_zero_points,
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return output


def _prefers_fbgemm() -> bool:
    """FBGEMM's packed weights take half of oneDNN's time for 1 to 8 rows with AVX2, oneDNN's VNNI code is the best."""
    return (
        "fbgemm" in _libraries()
        and hasattr(torch, "_make_per_channel_quantized_tensor")
        and not torch.cpu._is_vnni_supported()
    )


def _libraries() -> set[str]:
    return set(torch.backends.quantized.supported_engines)
