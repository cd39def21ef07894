"""Projection onto the residual stream: reference and kernel against the formula in float64."""

import pytest
import torch

from tests.kernels.buffers import GuardedBuffers, kernel_of, random, relative_error
from tests.kernels.test_ln_fc_gelu import TILINGS
from zeroshot_kernels.projection.reference import projection_reference

TOLERANCES = {torch.float32: 4e-7, torch.float16: 4e-7, torch.bfloat16: 4e-7}
"""The same for all: what is rounded is the input, not the sums."""

SHAPES = [(1, 64, 16), (2, 100, 37), (3, 63, 5), (8, 48, 48), (4, 1030, 6)]


def inputs(num_rows, n_in, n_out, dtype):
    hidden, weight = random(num_rows, n_in, seed=0, dtype=dtype), random(n_out, n_in, seed=1, dtype=dtype)
    return hidden, weight, random(n_out, seed=2, dtype=dtype), 30 * random(num_rows, n_out, seed=3)


def formula(hidden, weight, bias, residual):
    product = torch.einsum("ri,oi->ro", hidden.double(), weight.double())
    return residual.double() + product + bias.double()


def test_the_reference_is_the_formula():
    doubles = [tensor.double() for tensor in inputs(3, 40, 7, torch.float32)]
    assert relative_error(projection_reference(*doubles), formula(*doubles)) <= 1e-14
    out = projection_reference(*inputs(3, 40, 7, torch.bfloat16))
    assert out.dtype == torch.float32
    assert relative_error(out, formula(*inputs(3, 40, 7, torch.bfloat16))) <= 1e-6


@pytest.mark.parametrize("tiling", TILINGS, ids=str)
def test_programs_of_any_shape_give_the_formula(tiling, monkeypatch):
    kernel = kernel_of("projection")
    monkeypatch.setattr(kernel, "_tiling", lambda *_: kernel.Tiling(*tiling))
    arguments = inputs(2, 1100, 37, torch.float32)
    assert relative_error(kernel.projection(*arguments), formula(*arguments)) <= TOLERANCES[torch.float32]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_the_kernel_is_the_formula(shape, dtype):
    projection = kernel_of("projection").projection
    buffers = GuardedBuffers()
    arguments = [buffers.copy(tensor) for tensor in inputs(*shape, dtype)]
    out = buffers.poisoned(shape[0], shape[2])
    assert projection(*arguments, out=out) is out
    assert relative_error(out, formula(*arguments)) <= TOLERANCES[dtype]
    buffers.check()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_a_row_gets_the_same_bits_in_any_batch_and_in_place(dtype):
    projection = kernel_of("projection").projection
    hidden, weight, bias, residual = inputs(8, 80, 12, dtype)
    together = projection(hidden, weight, bias, residual)
    for rows in (slice(0, 1), slice(5, 6), slice(2, 4), slice(4, 8)):
        assert torch.equal(projection(hidden[rows], weight, bias, residual[rows]), together[rows])
    assert projection(hidden, weight, bias, residual, out=residual) is residual
    assert torch.equal(residual, together)


def test_a_nan_stays_in_its_row():
    projection = kernel_of("projection").projection
    hidden, weight, bias, residual = inputs(3, 64, 8, torch.float32)
    hidden[1, 5] = torch.nan
    out = projection(hidden, weight, bias, residual)
    assert out.isnan().all(-1).tolist() == [False, True, False]
    assert out[[0, 2]].isfinite().all()


def test_what_does_not_fit_is_refused_with_both_values():
    projection = kernel_of("projection").projection
    hidden, weight, bias, residual = inputs(3, 64, 8, torch.float32)
    with pytest.raises(ValueError, match=r"\(8, 63\).*64"):
        projection(hidden, weight[:, :63], bias, residual)
    with pytest.raises(ValueError, match=r"\(2, 8\).*\(3, 8\)"):
        projection(hidden, weight, bias, residual[:2])
    with pytest.raises(ValueError, match="contiguous"):
        projection(hidden, weight.t().contiguous().t(), bias, residual)
    with pytest.raises(ValueError, match=r"float16.*float32"):
        projection(hidden.half(), weight, bias, residual)
