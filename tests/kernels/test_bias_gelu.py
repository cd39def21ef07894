"""Bias and GELU: reference and kernel against the formula in float64."""

import math

import pytest
import torch

from tests.kernels.buffers import GuardedBuffers, kernel_of, random, relative_error
from zeroshot_kernels.bias_gelu.reference import bias_gelu_reference

TOLERANCES = {torch.float32: 3e-7, torch.float16: 5e-4, torch.bfloat16: 4e-3}


def inputs(num_tokens, width, dtype):
    return 3 * random(num_tokens, width, seed=0, dtype=dtype), random(width, seed=1, dtype=dtype)


def formula(hidden, bias):
    x = hidden.double() + bias.double()
    return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_the_reference_is_the_formula(dtype):
    out = bias_gelu_reference(*inputs(5, 100, dtype))
    assert out.dtype == dtype
    assert relative_error(out, formula(*inputs(5, 100, dtype))) <= TOLERANCES[dtype]


@pytest.mark.parametrize("shape", [(1, 1), (2, 63), (3, 1024), (2, 3072), (1, 1025)], ids=str)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_the_kernel_is_the_formula(shape, dtype):
    buffers = GuardedBuffers()
    arguments = [buffers.copy(tensor) for tensor in inputs(*shape, dtype)]
    out = buffers.poisoned(*shape, dtype=dtype)
    kernel_of("bias_gelu").bias_gelu(*arguments, out=out)
    assert relative_error(out, formula(*arguments)) <= TOLERANCES[dtype]
    buffers.check()


def test_far_from_zero():
    hidden = torch.tensor([[-1e30, -1e4, -20.0, -0.0, 20.0, 1e4, 1e30, torch.inf, torch.nan]])
    out = kernel_of("bias_gelu").bias_gelu(hidden, torch.zeros(9))
    assert torch.equal(out[0, :8], torch.tensor([0.0, 0.0, 0.0, 0.0, 20.0, 1e4, 1e30, torch.inf]))
    assert out[0, 8].isnan()


def test_in_place():
    hidden, bias = inputs(3, 70, torch.float16)
    expected = kernel_of("bias_gelu").bias_gelu(hidden, bias)
    assert torch.equal(kernel_of("bias_gelu").bias_gelu(hidden, bias, out=hidden), expected)
    assert torch.equal(hidden, expected)


def test_what_does_not_fit_is_refused_with_both_values():
    hidden, bias = inputs(3, 70, torch.float32)
    with pytest.raises(ValueError, match=r"\(3, 70\).*\(69,\)"):
        kernel_of("bias_gelu").bias_gelu(hidden, bias[:69])
