"""The decode attention kernel, in Triton's interpreter, against the formula in float64."""

import pytest
import torch

from tests.kernels.buffers import GuardedBuffers, kernel_of, random, relative_error
from tests.kernels.paged import PagedCache
from zeroshot_kernels.decode_attention.reference import decode_attention_reference

kernel = kernel_of("decode_attention")
decode_attention, DecodeWorkspace = kernel.decode_attention, kernel.DecodeWorkspace

TOLERANCES = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 6e-3}


def run(context_lens, n_head, head_dim, *, dtype=torch.float32, seed=0, **options):
    buffers = GuardedBuffers()
    cache = PagedCache(buffers, context_lens, n_head, head_dim, dtype=dtype, seed=seed, **options)
    query = buffers.copy(random(len(context_lens), n_head, head_dim, seed=seed + 1, dtype=dtype))
    out = buffers.poisoned(*query.shape, dtype=dtype)
    decode_attention(query, *cache.arguments(), head_dim**-0.5, out=out)
    buffers.check()
    return out, cache.expected(query, head_dim**-0.5)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_ragged_batch(dtype):
    out, expected = run([1, 63, 64, 65, 100, 255, 256, 257, 520], 2, 64, dtype=dtype)
    for i in range(len(out)):
        assert relative_error(out[i], expected[i]) <= TOLERANCES[dtype], i


@pytest.mark.parametrize("context_len", [1023, 1024, 1500])
def test_long_contexts(context_len):
    out, expected = run([context_len], 1, 64, seed=context_len)
    assert relative_error(out, expected) <= 1e-6


@pytest.mark.parametrize("head_dim", [32, 80, 96, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_other_head_dims(head_dim, dtype):
    out, expected = run([1, 63, 300], 2, head_dim, dtype=dtype, seed=head_dim)
    assert relative_error(out, expected) <= TOLERANCES[dtype]


@pytest.mark.parametrize("block_size", [16, 48, 128])
def test_other_page_sizes(block_size):
    out, expected = run([1, 47, 130, 300], 1, 64, block_size=block_size, seed=block_size)
    assert relative_error(out, expected) <= 1e-6


def test_the_contiguous_layout_of_the_reference_too():
    buffers = GuardedBuffers()
    cache = PagedCache(buffers, [70, 300], 2, 64)
    query = random(2, 2, 64, seed=2)
    arguments = (cache.key.contiguous(), cache.value.contiguous(), cache.block_tables, cache.context_lens, 0.125)
    assert torch.equal(decode_attention(query, *arguments), decode_attention(query, *cache.arguments(), 0.125))


def test_agrees_with_the_pytorch_reference():
    buffers = GuardedBuffers()
    cache = PagedCache(buffers, [5, 130, 270], 3, 64)
    query = random(3, 3, 64, seed=3)
    finite = [tensor.nan_to_num() for tensor in cache.arguments()[:2]]
    out = decode_attention(query, *cache.arguments(), 0.2)
    assert relative_error(out, decode_attention_reference(query, *finite, *cache.arguments()[2:], 0.2)) <= 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_sequence_gets_the_same_bits_in_any_batch(dtype):
    buffers = GuardedBuffers()
    cache = PagedCache(buffers, [700, 30, 256], 2, 64, dtype=dtype)
    query = random(3, 2, 64, seed=4, dtype=dtype)
    together = decode_attention(query, *cache.arguments(), 0.125)
    for i in range(3):
        rows = slice(i, i + 1)
        width = -(-int(cache.context_lens[i]) // 64)  # its own table is narrower than the batch's
        tables = cache.block_tables[rows, :width].contiguous()
        alone = decode_attention(query[rows], cache.key, cache.value, tables, cache.context_lens[rows], 0.125)
        assert torch.equal(alone[0], together[i])


def test_a_padding_row_gives_zeros_and_reads_nothing():
    buffers = GuardedBuffers()
    cache = PagedCache(buffers, [20, 300], 1, 64)
    lens = torch.tensor([20, 0, 300, 0], dtype=torch.int32)
    tables = torch.full((4, cache.block_tables.shape[1]), 10**6, dtype=torch.int32)
    tables[[0, 2]] = cache.block_tables
    query = random(4, 1, 64, seed=5)
    out = buffers.poisoned(4, 1, 64)
    decode_attention(query, cache.key, cache.value, tables, lens, 0.125, out=out)
    assert torch.equal(out[[1, 3]], torch.zeros(2, 1, 64))
    assert relative_error(out[[0, 2]], cache.expected(query[[0, 2]], 0.125)) <= 1e-6


def test_a_workspace_serves_launch_after_launch():
    buffers = GuardedBuffers()
    cache = PagedCache(buffers, [600, 20, 1024], 2, 64)
    big = DecodeWorkspace.allocate(5, 2, 64, 2048, torch.device("cpu"))
    arrivals = buffers.copy(big.arrivals)
    partials = [buffers.poisoned(*tensor.shape) for tensor in big[:3]]
    query = buffers.copy(random(3, 2, 64, seed=6))
    for _ in range(2):
        out = buffers.poisoned(3, 2, 64)
        decode_attention(query, *cache.arguments(), 0.125, out=out, workspace=DecodeWorkspace(*partials, arrivals))
        assert relative_error(out, cache.expected(query, 0.125)) <= 1e-6
        assert int(arrivals.abs().sum()) == 0
    buffers.check()


def test_large_scores_do_not_overflow():
    buffers = GuardedBuffers()
    cache = PagedCache(buffers, [kernel.SPLIT_SIZE + 40], 1, 64)
    query = 300 * random(1, 1, 64, seed=7)
    out = decode_attention(query, *cache.arguments(), 1.0)
    assert relative_error(out, cache.expected(query, 1.0)) <= 1e-4  # scores of about 1e4 have an ulp of 1e-3


def test_a_nan_stays_within_its_sequence_and_head():
    buffers = GuardedBuffers()
    cache = PagedCache(buffers, [20, 300], 2, 64)
    cache.key[cache.block_tables[1, 4], 7, 1] = torch.nan
    out = decode_attention(random(2, 2, 64, seed=8), *cache.arguments(), 0.125)
    assert out[1, 1].isnan().all()
    assert out[1, 0].isfinite().all()
    assert out[0].isfinite().all()


@pytest.mark.parametrize(
    ("changed", "numbers"),
    [
        ({"query": torch.zeros(2, 3, 64)}, ["3", "2"]),
        ({"query": torch.zeros(2, 2, 64, dtype=torch.float16)}, ["float16", "float32"]),
        ({"context_lens": torch.zeros(3, dtype=torch.int32)}, ["2", "3"]),
        ({"workspace": DecodeWorkspace.allocate(1, 2, 64, 64, torch.device("cpu"))}, ["1", "2"]),
    ],
)
def test_what_does_not_fit_is_refused_with_both_values(changed, numbers):
    cache = PagedCache(GuardedBuffers(), [20, 70], 2, 64)
    arguments = {"query": torch.zeros(2, 2, 64), "context_lens": cache.context_lens} | changed
    with pytest.raises(ValueError, match=".*".join(numbers)):
        decode_attention(
            key_cache=cache.key, value_cache=cache.value, block_tables=cache.block_tables, scale=0.1, **arguments
        )
