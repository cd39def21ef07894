"""LayerNorm, QKV projection and KV append: reference and kernel against the formula in float64."""

import pytest
import torch

from tests.kernels.buffers import GuardedBuffers, kernel_of, random, relative_error
from tests.kernels.test_ln_fc_gelu import folded, layer_norm
from zeroshot_kernels.ln_qkv_append.reference import ln_qkv_append_reference

TOLERANCES = {torch.float32: 2e-6, torch.float16: 5e-4, torch.bfloat16: 8e-3}
"""In bfloat16 a result is off by its rounding: the interpreter cuts off where a GPU rounds to the nearest."""

SLOTS = [0, 130, 64, 191, 17, 65, 3, 100]
HEADS = [(1, 2, 16), (3, 3, 5), (8, 1, 8), (2, 1, 40)]
"""Rows, n_head, head_dim; with 3 x 5 the programs' rows of the weight are partly keys, partly values."""


def unfolded(num_rows, n_head, head_dim, dtype):
    """A residual, and a LayerNorm and a linear layer as they are before they are folded."""
    d = n_head * head_dim
    norm = random(2, d, seed=2, dtype=dtype)
    return (
        30 * random(num_rows, d, seed=1) + 5,
        *norm,
        1e-5,
        random(3 * d, d, seed=3, dtype=dtype),
        random(3 * d, seed=4, dtype=dtype),
    )


def inputs(buffers, num_rows, n_head, head_dim, dtype):
    memory = buffers.copy(random(3, n_head, 2, 64, head_dim, seed=0, dtype=dtype))
    arguments = [*folded(*unfolded(num_rows, n_head, head_dim, dtype)), torch.tensor(SLOTS[:num_rows])]
    return [buffers.copy(v) if isinstance(v, torch.Tensor) else v for v in arguments], memory


def caches_of(memory):
    return memory.permute(2, 0, 3, 1, 4)


def formula(residual, ln_weight, ln_bias, eps, weight, bias, n_head):
    qkv = layer_norm(residual, ln_weight, ln_bias, eps) @ weight.double().t() + bias.double()
    return qkv.view(len(residual), 3, n_head, -1).unbind(1)


def check(append, buffers, num_rows, n_head, head_dim, dtype, **options):
    arguments, memory = inputs(buffers, num_rows, n_head, head_dim, dtype)
    before = memory.clone()
    query, key, value = formula(*unfolded(num_rows, n_head, head_dim, dtype), n_head)
    found = append(*arguments, *caches_of(memory), **options)
    assert found.dtype == dtype
    assert relative_error(found, query) <= TOLERANCES[dtype]
    for row, slot in enumerate(SLOTS[:num_rows]):
        for part, expected in enumerate((key, value)):
            written = memory[slot // 64, :, part, slot % 64]
            assert relative_error(written, expected[row]) <= TOLERANCES[dtype]
    assert (memory != before).sum() <= 2 * key.numel()
    assert (memory != before).flatten(2).any(-1).sum() == n_head * len({s // 64 for s in SLOTS[:num_rows]})
    return found


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_the_reference_is_the_formula(dtype):
    check(ln_qkv_append_reference, GuardedBuffers(), 3, 2, 16, dtype)


@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_the_kernel_is_the_formula(heads, dtype):
    kernel, buffers = kernel_of("ln_qkv_append"), GuardedBuffers()
    out = buffers.poisoned(*heads, dtype=dtype)
    assert check(kernel.ln_qkv_append, buffers, *heads, dtype, out=out) is out
    buffers.check()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_a_row_gets_the_same_bits_in_any_batch(dtype):
    kernel, buffers = kernel_of("ln_qkv_append"), GuardedBuffers()
    (residual, *rest, slots), memory = inputs(buffers, 8, 1, 8, dtype)
    alone_memory = memory.clone()
    together = kernel.ln_qkv_append(residual, *rest, slots, *caches_of(memory))
    for rows in (slice(0, 1), slice(1, 3), slice(3, 8)):
        alone = kernel.ln_qkv_append(residual[rows], *rest, slots[rows].int(), *caches_of(alone_memory))
        assert torch.equal(alone, together[rows])
    assert torch.equal(alone_memory, memory)


def test_slots_outside_the_cache_are_skipped():
    kernel = kernel_of("ln_qkv_append")
    for append in (kernel.ln_qkv_append, ln_qkv_append_reference):
        buffers = GuardedBuffers()
        (*rest, _), memory = inputs(buffers, 4, 1, 16, torch.float32)
        before = memory.clone()
        out = append(*rest, torch.tensor([-1, 192, 5, 10**9]), *caches_of(memory))
        assert out.isfinite().all()
        assert (memory != before).sum() == 2 * 16
        buffers.check()


def test_a_nan_stays_in_its_row():
    kernel = kernel_of("ln_qkv_append")
    (residual, *rest), memory = inputs(GuardedBuffers(), 3, 1, 16, torch.float32)
    residual[1, 5] = torch.nan
    out = kernel.ln_qkv_append(residual, *rest, *caches_of(memory))
    assert out.flatten(1).isnan().all(-1).tolist() == [False, True, False]
    assert memory.isnan().sum() == 2 * 16


def test_what_does_not_fit_is_refused_with_both_values():
    kernel = kernel_of("ln_qkv_append")
    arguments, memory = inputs(GuardedBuffers(), 3, 2, 32, torch.float32)
    with pytest.raises(ValueError, match=r"3 rows, 2 slots"):
        kernel.ln_qkv_append(*arguments[:-1], arguments[-1][:2], *caches_of(memory))
    with pytest.raises(ValueError, match=r"float32.*float16"):
        kernel.ln_qkv_append(*arguments, *caches_of(memory.half()))
    with pytest.raises(ValueError, match=r"rows of 64.*\(3, 64, 1, 32\)"):
        kernel.ln_qkv_append(*arguments, *caches_of(memory[:, :1]))
