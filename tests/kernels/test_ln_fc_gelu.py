"""LayerNorm, linear layer and GELU: reference and kernel against the formula in float64."""

import math

import pytest
import torch

from tests.kernels.buffers import GuardedBuffers, kernel_of, random, relative_error
from zeroshot_kernels.folded_norm import fold_norm
from zeroshot_kernels.ln_fc_gelu.reference import ln_fc_gelu_reference

TOLERANCES = {torch.float32: 2e-6, torch.float16: 5e-4, torch.bfloat16: 8e-3}
"""In bfloat16 a result is off by its rounding: the interpreter cuts off where a GPU rounds to the nearest."""

SHAPES = [(1, 64, 16), (2, 100, 37), (3, 63, 5), (8, 48, 24), (2, 1030, 6)]
"""Rows, n_in, n_out."""

TILINGS = [(2, 1, 1), (4, 1, 3), (4, 4, 2), (8, 2, 1)]
"""Warps, how many of them share a row of the weight, rows each: as wide models have them."""


def inputs(num_rows, n_in, n_out, dtype):
    """A residual, and a LayerNorm and a linear layer as they are before they are folded."""
    residual = 30 * random(num_rows, n_in, seed=0) + 5
    norm = random(2, n_in, seed=1, dtype=dtype)
    weight = 0.2 * random(n_out, n_in, seed=2)
    return residual, *norm, 1e-5, weight.to(dtype), random(n_out, seed=3, dtype=dtype)


def folded(residual, ln_weight, ln_bias, eps, weight, bias):
    """As the op takes them."""
    return residual, ln_weight, eps, weight, *fold_norm(ln_weight, ln_bias, weight, bias)


def layer_norm(residual, weight, bias, eps):
    x = residual.double()
    variance = x.var(-1, correction=0, keepdim=True)
    return (x - x.mean(-1, keepdim=True)) / (variance + eps).sqrt() * weight.double() + bias.double()


def formula(residual, ln_weight, ln_bias, eps, weight, bias):
    x = layer_norm(residual, ln_weight, ln_bias, eps) @ weight.double().t() + bias.double()
    return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def test_the_reference_is_the_formula():
    doubles = [
        value.double() if isinstance(value, torch.Tensor) else value for value in inputs(3, 40, 7, torch.float32)
    ]
    assert relative_error(ln_fc_gelu_reference(*folded(*doubles)), formula(*doubles)) <= 1e-6  # two float32 vectors
    assert ln_fc_gelu_reference(*folded(*inputs(3, 40, 7, torch.bfloat16))).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_the_kernel_is_the_formula(shape, dtype):
    ln_fc_gelu = kernel_of("ln_fc_gelu").ln_fc_gelu
    buffers = GuardedBuffers()
    given = inputs(*shape, dtype)
    arguments = [buffers.copy(v) if isinstance(v, torch.Tensor) else v for v in folded(*given)]
    out = buffers.poisoned(shape[0], shape[2], dtype=dtype)
    assert ln_fc_gelu(*arguments, out=out) is out
    assert relative_error(out, formula(*given)) <= TOLERANCES[dtype]
    buffers.check()


@pytest.mark.parametrize("tiling", TILINGS, ids=str)
def test_programs_of_any_shape_give_the_formula(tiling, monkeypatch):
    kernel = kernel_of("ln_fc_gelu")
    monkeypatch.setattr(kernel, "_tiling", lambda *_: kernel.Tiling(*tiling))
    given = inputs(2, 300, 37, torch.float32)
    assert relative_error(kernel.ln_fc_gelu(*folded(*given)), formula(*given)) <= TOLERANCES[torch.float32]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_a_row_gets_the_same_bits_in_any_batch(dtype):
    ln_fc_gelu = kernel_of("ln_fc_gelu").ln_fc_gelu
    residual, *rest = folded(*inputs(8, 80, 12, dtype))
    together = ln_fc_gelu(residual, *rest)
    for rows in (slice(0, 1), slice(5, 6), slice(2, 4), slice(4, 8)):
        assert torch.equal(ln_fc_gelu(residual[rows], *rest), together[rows])


def test_eps_counts_and_a_constant_row_is_finite():
    ln_fc_gelu = kernel_of("ln_fc_gelu").ln_fc_gelu
    residual, ln_weight, ln_bias, _, weight, bias = inputs(2, 64, 8, torch.float32)
    residual = torch.stack([torch.full((64,), 3.0), 1e-3 * random(64, seed=9)])
    given = (residual, ln_weight, ln_bias, 1e-3, weight, bias)
    # The mean is taken out of the products: of a row that is nothing but its mean, what is left is their rounding.
    assert relative_error(ln_fc_gelu(*folded(*given)), formula(*given)) <= 2e-5


def test_a_nan_stays_in_its_row():
    ln_fc_gelu = kernel_of("ln_fc_gelu").ln_fc_gelu
    residual, *rest = folded(*inputs(3, 64, 8, torch.float32))
    residual[1, 5] = torch.nan
    assert ln_fc_gelu(residual, *rest).isnan().all(-1).tolist() == [False, True, False]


def test_what_does_not_fit_is_refused_with_both_values():
    ln_fc_gelu = kernel_of("ln_fc_gelu").ln_fc_gelu
    residual, ln_weight, eps, weight, sums, bias = folded(*inputs(3, 64, 8, torch.float32))
    with pytest.raises(ValueError, match=r"\(63,\).*64"):
        ln_fc_gelu(residual, ln_weight[:63], eps, weight, sums, bias)
    with pytest.raises(ValueError, match=r"\(8, 64\).*\(7,\)"):
        ln_fc_gelu(residual, ln_weight, eps, weight, sums[:7], bias[:7])
    with pytest.raises(ValueError, match=r"\(8,\).*\(7,\)"):
        ln_fc_gelu(residual, ln_weight, eps, weight, sums, bias[:7])
    with pytest.raises(ValueError, match=r"float32, are torch.float32 and torch.bfloat16"):
        ln_fc_gelu(residual, ln_weight, eps, weight, sums, bias.bfloat16())
    with pytest.raises(ValueError, match="stride 1, has 3"):
        ln_fc_gelu(residual.t().contiguous().t(), ln_weight, eps, weight, sums, bias)
