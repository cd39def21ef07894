"""Residual addition and LayerNorm: reference and kernel against the formula in float64."""

import pytest
import torch

from tests.kernels.buffers import GuardedBuffers, kernel_of, random, relative_error
from zeroshot_kernels.layer_norm.reference import layer_norm_reference

TOLERANCES = {torch.float32: 3e-7, torch.float16: 5e-4, torch.bfloat16: 4e-3}
SHAPES = [(1, 64), (3, 63), (2, 768), (5, 100), (2, 1600)]


def inputs(num_tokens, n_embd, dtype):
    weight, bias = random(2, n_embd, seed=2)
    hidden = random(num_tokens, n_embd, seed=0, dtype=dtype)
    return hidden, 30 * random(num_tokens, n_embd, seed=1) + 5, weight.to(dtype), bias.to(dtype)


def formula(hidden, residual, weight, bias, eps):
    x = residual.double() + hidden.double()
    variance = x.var(-1, correction=0, keepdim=True)
    return (x - x.mean(-1, keepdim=True)) / (variance + eps).sqrt() * weight.double() + bias.double(), x


@pytest.mark.parametrize("dtype", [*TOLERANCES, torch.float64], ids=str)
def test_the_reference_is_the_formula(dtype):
    arguments = inputs(4, 100, dtype)
    if dtype == torch.float64:
        arguments = tuple(tensor.double() for tensor in arguments)
    out, residual = layer_norm_reference(*arguments, 1e-5)
    expected, expected_residual = formula(*arguments, 1e-5)
    assert out.dtype == dtype
    assert residual.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert relative_error(out, expected) <= TOLERANCES.get(dtype, 1e-14)
    assert relative_error(residual, expected_residual) <= 1e-7


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_the_kernel_is_the_formula(shape, dtype):
    layer_norm = kernel_of("layer_norm").layer_norm
    buffers = GuardedBuffers()
    arguments = [buffers.copy(tensor) for tensor in inputs(*shape, dtype)]
    out, residual_out = buffers.poisoned(*shape, dtype=dtype), buffers.poisoned(*shape)
    layer_norm(*arguments, 1e-5, out=out, residual_out=residual_out)
    expected, expected_residual = formula(*arguments, 1e-5)
    assert relative_error(out, expected) <= TOLERANCES[dtype]
    assert relative_error(residual_out, expected_residual) <= 1e-7
    buffers.check()


def test_the_residual_may_be_updated_in_place():
    layer_norm = kernel_of("layer_norm").layer_norm
    hidden, residual, weight, bias = inputs(3, 96, torch.float16)
    expected = layer_norm(hidden, residual, weight, bias, 1e-5)
    out, updated = layer_norm(hidden, residual, weight, bias, 1e-5, residual_out=residual)
    assert updated is residual
    assert torch.equal(out, expected[0])
    assert torch.equal(residual, expected[1])


def test_the_first_residual_may_be_an_embedding_in_half_precision():
    layer_norm = kernel_of("layer_norm").layer_norm
    hidden, residual, weight, bias = inputs(3, 96, torch.bfloat16)
    out, residual_out = layer_norm(hidden, residual.bfloat16(), weight, bias, 1e-5)
    expected, expected_residual = formula(hidden, residual.bfloat16(), weight, bias, 1e-5)
    assert relative_error(out, expected) <= 4e-3
    assert relative_error(residual_out, expected_residual) <= 1e-7


def test_rows_of_a_wider_matrix():
    layer_norm = kernel_of("layer_norm").layer_norm
    hidden, residual, weight, bias = inputs(3, 64, torch.float32)
    wide = torch.full((3, 200), torch.nan)
    wide[:, 70:134] = hidden
    assert torch.equal(
        layer_norm(wide[:, 70:134], residual, weight, bias, 1e-5)[0],
        layer_norm(hidden, residual, weight, bias, 1e-5)[0],
    )


def test_eps_counts_and_a_constant_row_gives_the_bias():
    layer_norm = kernel_of("layer_norm").layer_norm
    _, _, weight, bias = inputs(1, 64, torch.float32)
    zeros = torch.zeros(1, 64)
    assert torch.equal(layer_norm(zeros, zeros + 3, weight, bias, 1e-5)[0][0], bias)
    hidden = 1e-3 * random(1, 64, seed=3)
    out = layer_norm(hidden, zeros, weight, bias, 1e-3)[0]
    assert relative_error(out, formula(hidden, zeros, weight, bias, 1e-3)[0]) <= 3e-7


def test_a_nan_stays_in_its_row():
    layer_norm = kernel_of("layer_norm").layer_norm
    hidden, residual, weight, bias = inputs(3, 64, torch.float32)
    hidden[1, 5] = torch.nan
    out, _ = layer_norm(hidden, residual, weight, bias, 1e-5)
    assert out.isnan().all(-1).tolist() == [False, True, False]
    assert out[[0, 2]].isfinite().all()


def test_what_does_not_fit_is_refused_with_both_values():
    layer_norm = kernel_of("layer_norm").layer_norm
    hidden, residual, weight, bias = inputs(3, 64, torch.float32)
    with pytest.raises(ValueError, match=r"\(3, 64\).*\(2, 64\)"):
        layer_norm(hidden, residual[:2], weight, bias, 1e-5)
    with pytest.raises(ValueError, match=r"\(63,\).*64"):
        layer_norm(hidden, residual, weight[:63], bias, 1e-5)
    with pytest.raises(ValueError, match="stride 1, has 3"):
        layer_norm(hidden.t().contiguous().t(), residual, weight, bias, 1e-5)
