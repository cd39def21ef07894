"""int8 linear layers: the integers are exact in every library, and rows are independent."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zeroshot.model.int8_linear import (
    MAX_ACTIVATION,
    MAX_WEIGHT,
    MAX_WEIGHT_PAIR,
    Int8Linear,
    _Fbgemm,
    _OneDNN,
    quantize_weight,
)

ENGINES = torch.backends.quantized.supported_engines
LIBRARIES = [
    pytest.param(library, marks=pytest.mark.skipif(name not in ENGINES, reason=f"this CPU has no {name}"))
    for library, name in ((_Fbgemm, "fbgemm"), (_OneDNN, "onednn"))
]


def integers(num_rows: int, width: int, largest: int, *, seed: int) -> Tensor:
    return torch.randint(-largest, largest + 1, (num_rows, width), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("shape", [(1, 64, 96), (8, 768, 2304), (65, 3072, 768), (3, 100, 50257)], ids=str)
@pytest.mark.parametrize("pairs", [(64, 64, 64, 64), (1, 127, 127, 1), (100, 28, 28, 100)], ids=str)
def test_the_sum_of_products_is_that_of_64_bit_integers(
    library: type, shape: tuple[int, int, int], pairs: tuple[int, ...]
) -> None:
    """With the largest activations, where partial sums in 16 bits come closest to saturating.

    Up to fp32's last bits of what is added up, which may be far more than its sum: past 2^24 fp32 lacks some integers,
    and oneDNN may add up in it what AMX multiplied in pieces.
    """
    num_rows, width, num_outputs = shape
    weight = integers(num_outputs, width, 1, seed=1).sign() * torch.tensor(pairs).repeat(width // 4)
    hidden = integers(num_rows, width, MAX_ACTIVATION, seed=2)
    hidden[0] = MAX_ACTIVATION
    weight[0] = weight[0].abs()
    weight[1] = -weight[0]
    output = library(weight.to(torch.int8), torch.ones(num_outputs))(hidden.float())
    rounding = 2**-22 * (hidden.abs() @ weight.abs().t()).double()
    assert ((output.double() - hidden @ weight.t()).abs() <= rounding).all()


@pytest.mark.parametrize("library", LIBRARIES)
def test_weights_as_a_layer_hands_them_over(library: type) -> None:
    """Transposed, as Conv1D stores them: the rounded ones must not keep those strides."""
    quantized, scales = quantize_weight(torch.randn(64, 48, generator=torch.Generator().manual_seed(1)).t())
    hidden = integers(3, 64, MAX_ACTIVATION, seed=2)
    output = library(quantized, torch.ones_like(scales))(hidden.float())
    assert torch.equal(output.long(), hidden @ quantized.long().t())


@given(
    num_rows=st.integers(1, 40), width=st.integers(1, 80), num_outputs=st.integers(1, 70), seed=st.integers(0, 2**31)
)
def test_a_row_is_the_same_alone_and_among_others(num_rows: int, width: int, num_outputs: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, bias, hidden = (
        torch.randn(shape, generator=generator) for shape in ((width, num_outputs), (num_outputs,), (num_rows, width))
    )
    linear = Int8Linear(weight, bias)
    together = linear(hidden)
    for row in range(num_rows):
        assert torch.equal(linear(hidden[row : row + 1])[0], together[row])


@given(num_rows=st.integers(1, 9), width=st.integers(8, 300), size=st.floats(1e-3, 1e3), seed=st.integers(0, 2**31))
def test_the_result_is_as_close_as_8_bits_allow(num_rows: int, width: int, size: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(width, 24, generator=generator)
    hidden = torch.randn(num_rows, width, generator=generator) * size
    residual = torch.randn(num_rows, 24, generator=generator) * size
    linear = Int8Linear(weight, torch.ones(24))
    exact = hidden.double() @ weight.double()
    # Each factor is off by half a step at most.
    weight_step = quantize_weight(weight.t())[1]
    hidden_step = hidden.abs().amax(1, keepdim=True) / MAX_ACTIVATION
    bound = width * (weight.abs().amax(0) * hidden_step + hidden.abs().amax(1, keepdim=True) * weight_step) / 2 * 1.01
    assert ((linear(hidden) - 1 - exact).abs() <= bound + 1e-5 * size).all()
    assert ((linear.add_to(residual, hidden) - 1 - residual - exact).abs() <= bound + 1e-5 * (size + 1)).all()


def test_a_row_of_zeros_gives_the_bias() -> None:
    bias = torch.randn(16)
    assert torch.equal(Int8Linear(torch.randn(32, 16), bias)(torch.zeros(2, 32)), bias.expand(2, 16))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_stay_in_their_row(bad: float) -> None:
    hidden = torch.randn(3, 32)
    linear = Int8Linear(torch.randn(32, 16), torch.zeros(16))
    expected = linear(hidden)
    hidden[1, 5] = bad
    output = linear(hidden)
    assert not output[1].isfinite().any()
    assert torch.equal(output[[0, 2]], expected[[0, 2]])


@given(num_outputs=st.integers(1, 9), width=st.integers(1, 70), seed=st.integers(0, 2**31), is_peaked=st.booleans())
def test_neighbouring_weights_never_sum_to_more_than_16_bits_hold(
    num_outputs: int, width: int, seed: int, is_peaked: bool
) -> None:
    weight = torch.randn(num_outputs, width, generator=torch.Generator().manual_seed(seed))
    weight = weight**9 if is_peaked else weight
    quantized, scales = quantize_weight(weight)
    sizes = torch.nn.functional.pad(quantized.int().abs(), (0, width % 2)).unflatten(1, (-1, 2))
    assert sizes.max() <= MAX_WEIGHT
    assert sizes.sum(-1).max() <= MAX_WEIGHT_PAIR
    assert ((quantized * scales[:, None] - weight).abs() <= scales[:, None] / 2 * 1.001).all()


def test_a_row_of_zeros_has_weights_of_zero() -> None:
    assert quantize_weight(torch.zeros(2, 5))[0].tolist() == [[0] * 5] * 2
