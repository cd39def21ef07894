"""Attention in splits: reference and kernel against softmax in float64."""

import math

import pytest
import torch

from tests.kernels.buffers import GuardedBuffers, kernel_of, random, relative_error
from tests.kernels.paged import PagedCache
from zeroshot_kernels.split_attention.reference import SPLIT_SIZE, split_attention_reference

kernel = kernel_of("split_attention")
TOLERANCES = {torch.float32: 1e-6, torch.float16: 1e-6, torch.bfloat16: 1e-6}
"""The same for all: outputs are float32, and only inputs are rounded."""


def merged(results, context_lens):
    """What the splits come to, in float64: output, and log-sum-exp of the scores."""
    rows = []
    for row, context_len in enumerate(context_lens.tolist()):
        output, largest, total = (tensor[row, : -(-context_len // SPLIT_SIZE)].double() for tensor in results)
        weights = torch.exp2(largest - largest.amax(0))
        rows.append((weights[..., None] * output).sum(0) / (weights * total).sum(0)[..., None])
    return torch.stack(rows)


def poisoned(buffers, *shape):
    return kernel.SplitResults(buffers.poisoned(*shape), *(buffers.poisoned(*shape[:3]) for _ in range(2)))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_ragged_batch(dtype):
    buffers = GuardedBuffers()
    lens = [1, 127, 128, 129, 400]
    cache = PagedCache(buffers, lens, 2, 64, dtype=dtype)
    query = buffers.copy(random(len(lens), 2, 64, seed=1, dtype=dtype))
    out = poisoned(buffers, len(lens), 4, 2, 64)
    assert kernel.split_attention(query, *cache.arguments(), 0.125, out=out) is out
    buffers.check()
    assert relative_error(merged(out, cache.context_lens), cache.expected(query, 0.125)) <= TOLERANCES[dtype]
    for row, length in enumerate(lens):  # splits past a context are left alone
        assert out.partial_sum[row, -(-length // SPLIT_SIZE) :].isnan().all()


@pytest.mark.parametrize(("head_dim", "block_size"), [(32, 16), (80, 64), (128, 48), (64, 256)])
def test_other_heads_and_pages(head_dim, block_size):
    buffers = GuardedBuffers()
    cache = PagedCache(buffers, [1, 260], 2, head_dim, block_size=block_size)
    query = random(2, 2, head_dim, seed=2)
    out = kernel.split_attention(query, *cache.arguments(), 0.2)
    assert relative_error(merged(out, cache.context_lens), cache.expected(query, 0.2)) <= 1e-6
    buffers.check()


def test_each_split_is_the_references():
    cache = PagedCache(GuardedBuffers(), [5, 260, 128], 3, 64)
    query = random(3, 3, 64, seed=3)
    found = kernel.split_attention(query, *cache.arguments(), 0.2)
    finite = [tensor.nan_to_num().double() for tensor in cache.arguments()[:2]]
    expected = split_attention_reference(query.double(), *finite, *cache.arguments()[2:], 0.2)
    assert relative_error(merged(expected, cache.context_lens), cache.expected(query, 0.2)) <= 1e-14
    used = expected[1].isfinite()
    assert used.sum(1)[:, 0].tolist() == [1, 3, 1]
    for a, b in zip(found, expected, strict=True):
        assert relative_error(a[used], b[used]) <= 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_sequence_gets_the_same_bits_in_any_batch(dtype):
    cache = PagedCache(GuardedBuffers(), [300, 30, 128], 2, 64, dtype=dtype)
    query = random(3, 2, 64, seed=4, dtype=dtype)
    together = kernel.split_attention(query, *cache.arguments(), 0.125)
    for i in range(3):
        rows, splits = slice(i, i + 1), -(-int(cache.context_lens[i]) // SPLIT_SIZE)
        tables = cache.block_tables[rows, : splits * SPLIT_SIZE // 64].contiguous()
        alone = kernel.split_attention(query[rows], cache.key, cache.value, tables, cache.context_lens[rows], 0.125)
        for a, b in zip(alone, together, strict=True):
            assert torch.equal(a[0, :splits], b[i, :splits])


def test_rows_of_one_sequence_have_the_bits_of_steps_one_by_one():
    """A guess: the newest tokens of a sequence, each a row, of which each sees those before it."""
    cache = PagedCache(GuardedBuffers(), [131], 2, 64)
    query = random(5, 2, 64, seed=8)
    lens = torch.arange(127, 132, dtype=torch.int32)
    tables = cache.block_tables.expand(5, -1).contiguous()
    together = kernel.split_attention(query, cache.key, cache.value, tables, lens, 0.125)
    for i, length in enumerate(lens.tolist()):
        rows, splits = slice(i, i + 1), -(-length // SPLIT_SIZE)
        alone = kernel.split_attention(query[rows], cache.key, cache.value, tables[rows], lens[rows], 0.125)
        for a, b in zip(alone, together, strict=True):
            assert torch.equal(a[0, :splits], b[i, :splits])


def test_results_for_longer_contexts_are_of_as_many_splits_as_there_can_be():
    """Merging is compiled for that number, and GPT-2's fit in one pass."""
    buffers = GuardedBuffers()
    cache = PagedCache(buffers, [1, 300], 2, 64)
    query = random(2, 2, 64, seed=9)
    expected = kernel.split_attention(query, *cache.arguments(), 0.125)
    room = poisoned(buffers, 3, 10, 2, 64)
    found = kernel.split_attention(query, *cache.arguments(), 0.125, out=room)
    for tensor, whole, alone in zip(found, room, expected, strict=True):
        assert tensor.data_ptr() == whole.data_ptr()
        assert tensor.is_contiguous()
        assert tensor.shape[1] == alone.shape[1] == 3
        for row, splits in enumerate([1, 3]):
            assert torch.equal(tensor[row, :splits], alone[row, :splits])
    buffers.check()


def test_a_row_that_is_none_reads_and_writes_nothing():
    buffers = GuardedBuffers()
    cache = PagedCache(buffers, [20], 1, 64)
    out = poisoned(buffers, 3, 1, 1, 64)
    tables = torch.tensor([[10**6], [int(cache.block_tables[0, 0])], [10**6]], dtype=torch.int32)
    lens = torch.tensor([0, 20, 0], dtype=torch.int32)
    kernel.split_attention(random(3, 1, 64, seed=5), cache.key, cache.value, tables, lens, 0.125, out=out)
    assert out.partial_output[[0, 2]].isnan().all()
    assert out.partial_output[1].isfinite().all()
    buffers.check()


def test_large_scores_do_not_overflow():
    cache = PagedCache(GuardedBuffers(), [SPLIT_SIZE + 40], 1, 64)
    query = 300 * random(1, 1, 64, seed=7)
    out = kernel.split_attention(query, *cache.arguments(), 1.0)
    scores = torch.einsum("hd,nhd->hn", query[0].double(), cache.keys[0].double()) / math.log(2)
    largest = torch.stack([scores[:, :SPLIT_SIZE].amax(1), scores[:, SPLIT_SIZE:].amax(1)])
    assert relative_error(out.partial_max[0], largest) <= 1e-6
    assert relative_error(merged(out, cache.context_lens), cache.expected(query, 1.0)) <= 1e-4


def test_what_does_not_fit_is_refused_with_both_values():
    cache = PagedCache(GuardedBuffers(), [20, 70], 2, 64)
    query = torch.zeros(2, 2, 64)
    with pytest.raises(ValueError, match=r"float16.*float32"):
        kernel.split_attention(query.half(), *cache.arguments(), 0.1)
    small = kernel.SplitResults.allocate(1, 2, 64, 64, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"\(1, 1, 2, 64\).*\(2, 1, 2, 64\)"):
        kernel.split_attention(query, *cache.arguments(), 0.1, out=small)
