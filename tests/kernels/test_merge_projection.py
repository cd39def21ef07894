"""Merging splits and projecting: reference and kernel against softmax over the whole context in float64."""

import pytest
import torch

from tests.kernels.buffers import GuardedBuffers, kernel_of, random, relative_error
from zeroshot_kernels.merge_projection.reference import merge_projection_reference
from zeroshot_kernels.split_attention.reference import SPLIT_SIZE

TOLERANCES = {torch.float32: 6e-7, torch.float16: 6e-7, torch.bfloat16: 6e-7}
"""The same for all: what is rounded is the weight, not the sums."""

SHAPES = [(1, 1, 32, 16), (3, 2, 48, 37), (8, 3, 16, 16), (2, 3, 80, 9)]
"""Rows, n_head, head_dim, n_out."""

LENS = [700, 64, 1, 65, 300, 128, 256, 513]


def inputs(num_rows, n_head, head_dim, n_out, dtype, num_splits=12):
    """Splits of a real softmax, with maxima far apart; what is past a context is NaN. And attention in float64."""
    lens = torch.tensor(LENS[:num_rows], dtype=torch.int32)
    output = torch.full((num_rows, num_splits, n_head, head_dim), torch.nan)
    largest, total = torch.full((2, num_rows, num_splits, n_head), torch.nan)
    attended = []
    for row, length in enumerate(lens.tolist()):
        scores = 40 * random(length, n_head, seed=row).double()
        values = random(length, n_head, head_dim, seed=100 + row).double()
        weights = torch.exp2(scores - scores.amax(0))
        attended.append(torch.einsum("nh,nhd->hd", weights, values) / weights.sum(0)[:, None])
        for split, start in enumerate(range(0, length, SPLIT_SIZE)):
            part = scores[start : start + SPLIT_SIZE]
            largest[row, split] = part.amax(0).float()
            weights = torch.exp2(part - largest[row, split].double())
            total[row, split] = weights.sum(0).float()
            output[row, split] = torch.einsum("nh,nhd->hd", weights, values[start : start + SPLIT_SIZE]).float()
    weight = random(n_out, n_head * head_dim, seed=50, dtype=dtype)
    bias, residual = random(n_out, seed=51, dtype=dtype), 30 * random(num_rows, n_out, seed=52)
    expected = residual.double() + torch.stack(attended).flatten(1) @ weight.double().t() + bias.double()
    return [output, largest, total, lens, weight, bias, residual], expected


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_the_reference_is_the_formula(dtype):
    arguments, expected = inputs(3, 2, 16, 7, dtype)
    out = merge_projection_reference(*arguments)
    assert out.dtype == torch.float32
    assert relative_error(out, expected) <= 1e-6


@pytest.mark.parametrize("num_splits", [6, 12], ids=["in one pass", "in several"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_the_kernel_is_the_formula(shape, dtype, num_splits):
    kernel, buffers = kernel_of("merge_projection"), GuardedBuffers()
    arguments, expected = inputs(*shape, dtype, num_splits)
    arguments = [buffers.copy(tensor) for tensor in arguments]
    out = buffers.poisoned(shape[0], shape[3])
    assert kernel.merge_projection(*arguments, out=out) is out
    assert relative_error(out, expected) <= TOLERANCES[dtype]
    buffers.check()


def test_a_row_gets_the_same_bits_in_any_batch_and_in_place():
    kernel = kernel_of("merge_projection")
    (*partials, lens, weight, bias, residual), _ = inputs(8, 2, 32, 12, torch.bfloat16)
    together = kernel.merge_projection(*partials, lens, weight, bias, residual)
    for rows in (slice(0, 1), slice(5, 6), slice(2, 4), slice(4, 8)):
        alone = kernel.merge_projection(*(p[rows] for p in partials), lens[rows], weight, bias, residual[rows])
        assert torch.equal(alone, together[rows])
    # A workspace for more rows and longer contexts.
    wide = [torch.full((9, 20, *p.shape[2:]), torch.nan) for p in partials]
    for into, partial in zip(wide, partials, strict=True):
        into[:8, :12] = partial
    kernel.merge_projection(*wide, lens, weight, bias, residual, out=residual)
    assert torch.equal(residual, together)


@pytest.mark.parametrize("num_splits", [6, 12])
def test_an_empty_context_adds_the_bias_alone(num_splits):
    (*partials, lens, weight, bias, residual), _ = inputs(2, 2, 32, 12, torch.float32, num_splits)
    lens[0] = 0
    for merge in (kernel_of("merge_projection").merge_projection, merge_projection_reference):
        out = merge(*partials, lens, weight, bias, residual)
        assert torch.equal(out[0], residual[0] + bias)
        assert out[1].isfinite().all()


def test_a_nan_stays_in_its_row():
    (*partials, lens, weight, bias, residual), _ = inputs(3, 2, 32, 12, torch.float32)
    partials[0][1, 0, 1, 3] = torch.nan
    for merge in (kernel_of("merge_projection").merge_projection, merge_projection_reference):
        out = merge(*partials, lens, weight, bias, residual)
        assert out.isnan().all(-1).tolist() == [False, True, False]


def test_what_does_not_fit_is_refused_with_both_values():
    merge = kernel_of("merge_projection").merge_projection
    (*partials, lens, weight, bias, residual), _ = inputs(2, 2, 32, 12, torch.float32)
    with pytest.raises(ValueError, match=r"\(12, 63\).*64"):
        merge(*partials, lens, weight[:, :63], bias, residual)
    with pytest.raises(ValueError, match=r"\(2, 12\).*1 context"):
        merge(*partials, lens[:1], weight, bias, residual)
    with pytest.raises(ValueError, match=r"partial_max \(2, 12, 1\).*\(2, 12, 2, 32\)"):
        merge(partials[0], partials[1][..., :1], partials[2], lens, weight, bias, residual)
