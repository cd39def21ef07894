"""Linear layers in the C++ kernels' layouts: weights packed once into tiles of 16 outputs, in pages of 2 MB."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshot_kernels.cpu.huge_pages import HugePages
from zeroshot_kernels.cpu.library import library

TILE = 16
GROUP = 4
ZERO_POINT = 128
MATRIX_ROWS = 16


def pack_float(weight: Tensor, pages: HugePages) -> Tensor:
    """weight: [out, in] float32 -> [num_tiles, in, TILE], the last tile filled up with zeros."""
    tiles = _tiles(weight)
    return pages.zeros(*tiles.transpose(1, 2).shape, dtype=weight.dtype).copy_(tiles.transpose(1, 2))


def pack_bf16(weight: Tensor, pages: HugePages) -> Tensor:
    """weight: [out, in] float32 -> bfloat16 [num_tiles, in / 2, TILE, 2], filled up with zeros."""
    tiles = _grouped(weight.bfloat16(), 2)
    return pages.zeros(*tiles.shape, dtype=torch.bfloat16).copy_(tiles)


class Int8Weight(NamedTuple):
    weight: Tensor  # int8 [num_tiles, num_groups, TILE, GROUP]
    scales: Tensor  # float32 [num_tiles * TILE]
    offsets: Tensor  # int32 [num_tiles * TILE]: ZERO_POINT * the sum of each output's weights


def pack_int8(quantized: Tensor, scales: Tensor, pages: HugePages) -> Int8Weight:
    """quantized: int8 [out, in], the sizes of two neighbouring inputs sum to at most 128; scales: float32 [out]."""
    grouped = _grouped(quantized, GROUP)
    padding = (0, -len(quantized) % TILE)
    return Int8Weight(
        pages.zeros(*grouped.shape, dtype=torch.int8).copy_(grouped),
        F.pad(scales, padding),
        F.pad(ZERO_POINT * quantized.sum(1, dtype=torch.int32), padding),
    )


def _grouped(weight: Tensor, size: int) -> Tensor:
    """[out, in] -> [num_tiles, in / size, TILE, size]: so many inputs lie side by side, the last ones zeros."""
    tiles = _tiles(F.pad(weight, (0, -weight.shape[1] % size)))
    return tiles.view(len(tiles), TILE, -1, size).transpose(1, 2)


def _tiles(weight: Tensor) -> Tensor:
    """[out, in] -> [num_tiles, TILE, in]."""
    return F.pad(weight, (0, 0, 0, -len(weight) % TILE)).view(-1, TILE, weight.shape[1])


def float_linear(
    hidden: Tensor, weight: Tensor, num_outputs: int, bias: Tensor | None, residual: Tensor | None, *, has_gelu: bool
) -> Tensor:
    """residual + gelu_tanh(hidden @ weight + bias), each part of it optional: [num_tokens, num_outputs].

    hidden: [num_tokens, in] float32; weight: as `pack_float` gives it; bias: [num_outputs]; residual: as the result.
    """
    hidden = hidden.contiguous()
    num_tokens, num_inputs = hidden.shape
    output = _output(hidden, num_outputs, residual)
    library().zeroshot_float_linear(
        hidden.data_ptr(), weight.data_ptr(), _address(bias), _address(residual), output.data_ptr(),
        num_tokens, num_inputs, num_outputs, output.stride(0), has_gelu,
    )  # fmt: skip
    return output


def bf16_linear(
    hidden: Tensor, weight: Tensor, num_outputs: int, bias: Tensor | None, residual: Tensor | None, *, has_gelu: bool
) -> Tensor:
    """The same with `pack_bf16`'s weights. A processor with matrix registers for bfloat16 rounds hidden, too."""
    hidden = hidden.contiguous()
    num_tokens, num_inputs = hidden.shape
    output = _output(hidden, num_outputs, residual)
    room = _room(num_tokens, 2 * num_inputs)
    library().zeroshot_bf16_linear(
        hidden.data_ptr(), weight.data_ptr(), _address(bias), _address(residual), output.data_ptr(), room.data_ptr(),
        num_tokens, num_inputs, num_outputs, output.stride(0), has_gelu,
    )  # fmt: skip
    return output


def int8_linear(
    hidden: Tensor,
    weight: Int8Weight,
    num_outputs: int,
    bias: Tensor | None,
    residual: Tensor | None,
    *,
    has_gelu: bool,
) -> Tensor:
    """The same with hidden rounded to int8, a scale for each token, and `pack_int8`'s weights. Sums are exact."""
    hidden = hidden.contiguous()
    num_tokens, num_inputs = hidden.shape
    output = _output(hidden, num_outputs, residual)
    rounded, row_scales = _rounded(num_tokens, weight)
    library().zeroshot_int8_linear(
        hidden.data_ptr(), weight.weight.data_ptr(), weight.scales.data_ptr(), weight.offsets.data_ptr(),
        _address(bias), _address(residual), output.data_ptr(), rounded.data_ptr(), row_scales.data_ptr(),
        num_tokens, num_inputs, num_outputs, output.stride(0), has_gelu,
    )  # fmt: skip
    return output


def float_greedy(hidden: Tensor, weight: Tensor, num_outputs: int) -> tuple[Tensor, Tensor]:
    """The largest of hidden @ weight in each row: which output it is, [num_tokens] int64, the first of equal ones; and
    whether all of them are finite, [num_tokens] bool. hidden, weight: as in `float_linear`.
    """
    hidden = hidden.contiguous()
    tokens, are_finite = _chosen(len(hidden))
    library().zeroshot_float_greedy(
        hidden.data_ptr(), weight.data_ptr(), tokens.data_ptr(), are_finite.data_ptr(), *hidden.shape, num_outputs
    )
    return tokens, are_finite


def bf16_greedy(hidden: Tensor, weight: Tensor, num_outputs: int) -> tuple[Tensor, Tensor]:
    """The same of `bf16_linear`'s outputs."""
    hidden = hidden.contiguous()
    tokens, are_finite = _chosen(len(hidden))
    room = _room(len(hidden), 2 * hidden.shape[1])
    library().zeroshot_bf16_greedy(
        hidden.data_ptr(), weight.data_ptr(), room.data_ptr(), tokens.data_ptr(), are_finite.data_ptr(),
        *hidden.shape, num_outputs,
    )  # fmt: skip
    return tokens, are_finite


def int8_greedy(hidden: Tensor, weight: Int8Weight, num_outputs: int) -> tuple[Tensor, Tensor]:
    """The same of `int8_linear`'s outputs."""
    hidden = hidden.contiguous()
    tokens, are_finite = _chosen(len(hidden))
    rounded, row_scales = _rounded(len(hidden), weight)
    library().zeroshot_int8_greedy(
        hidden.data_ptr(), weight.weight.data_ptr(), weight.scales.data_ptr(), weight.offsets.data_ptr(),
        rounded.data_ptr(), row_scales.data_ptr(), tokens.data_ptr(), are_finite.data_ptr(),
        *hidden.shape, num_outputs,
    )  # fmt: skip
    return tokens, are_finite


def _output(hidden: Tensor, num_outputs: int, residual: Tensor | None) -> Tensor:
    """Rows start on a line of the cache, or where two threads meet they would write to the same one. With a residual
    they lie as it does, one after the other.
    """
    width = num_outputs if residual is not None else -(-num_outputs // TILE) * TILE
    return hidden.new_empty(len(hidden), width)[:, :num_outputs]


def _rounded(num_tokens: int, weight: Int8Weight) -> tuple[Tensor, Tensor]:
    """Room for rounded rows, and for their scales."""
    return _room(num_tokens, weight.weight.shape[1] * GROUP), torch.empty(num_tokens)


def _room(num_tokens: int, row_bytes: int) -> Tensor:
    return torch.empty(whole_registers(num_tokens) * row_bytes, dtype=torch.uint8)


def _chosen(num_tokens: int) -> tuple[Tensor, Tensor]:
    return torch.empty(num_tokens, dtype=torch.int64), torch.empty(num_tokens, dtype=torch.bool)


def whole_registers(num_rows: int) -> int:
    """num_rows, up to the next multiple of sixteen: a matrix register holds that many, whatever is in the last ones."""
    return -(-num_rows // MATRIX_ROWS) * MATRIX_ROWS


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
