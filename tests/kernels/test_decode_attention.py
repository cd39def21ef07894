"""One new token per sequence over a paged cache, against the formula in float64."""

import pytest
import torch

from zeroshot_kernels.decode_attention.reference import decode_attention_reference

RAGGED_LENS = [1, 15, 16, 17, 63, 100, 1023, 1024]


def expected_of(naive_attention, query, cache, scale):
    rows = [naive_attention(query[i : i + 1], cache.keys[i], cache.values[i], scale) for i in range(len(query))]
    return torch.cat(rows)


@pytest.mark.parametrize("head_dim", [32, 64, 80])
def test_ragged_batch(paged_cache, naive_attention, relative_error, dtype, tolerance, head_dim):
    cache = paged_cache(RAGGED_LENS, 2, head_dim, dtype=dtype, seed=head_dim)
    query = torch.randn(len(RAGGED_LENS), 2, head_dim, generator=torch.Generator().manual_seed(1)).to(dtype)
    scale = head_dim**-0.5
    output = decode_attention_reference(query, cache.key, cache.value, cache.block_tables, RAGGED_LENS, scale)
    expected = expected_of(naive_attention, query, cache, scale)
    assert output.shape == query.shape
    assert output.dtype == dtype
    for row, expected_row, context_len in zip(output, expected, RAGGED_LENS, strict=True):
        assert relative_error(row, expected_row) <= tolerance, context_len


@pytest.mark.parametrize("context_len", RAGGED_LENS)
def test_a_sequence_alone(paged_cache, naive_attention, relative_error, context_len):
    cache = paged_cache([context_len], 3, 32, dtype=torch.float32, seed=context_len)
    query = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(2))
    output = decode_attention_reference(query, cache.key, cache.value, cache.block_tables, [context_len], 0.3)
    assert relative_error(output, expected_of(naive_attention, query, cache, 0.3)) <= 2e-6


def test_equal_lengths_take_the_unmasked_path(paged_cache, naive_attention, relative_error):
    cache = paged_cache([37] * 4, 2, 32, dtype=torch.float32, seed=3)
    query = torch.randn(4, 2, 32, generator=torch.Generator().manual_seed(3))
    output = decode_attention_reference(query, cache.key, cache.value, cache.block_tables, [37] * 4, 0.2)
    assert relative_error(output, expected_of(naive_attention, query, cache, 0.2)) <= 2e-6


def test_the_scale_is_the_one_given(paged_cache, naive_attention, relative_error):
    cache = paged_cache([40, 9], 2, 32, dtype=torch.float32, seed=4)
    query = torch.randn(2, 2, 32, generator=torch.Generator().manual_seed(4))
    output = decode_attention_reference(query, cache.key, cache.value, cache.block_tables, [40, 9], 1.0)
    assert relative_error(output, expected_of(naive_attention, query, cache, 1.0)) <= 2e-6
    assert relative_error(output, expected_of(naive_attention, query, cache, 32**-0.5)) > 1e-2


def test_two_sequences_may_share_blocks(paged_cache, naive_attention, relative_error):
    cache = paged_cache([48], 2, 32, dtype=torch.float32, seed=5)
    query = torch.randn(2, 2, 32, generator=torch.Generator().manual_seed(5))
    tables = cache.block_tables.repeat(2, 1)
    output = decode_attention_reference(query, cache.key, cache.value, tables, [48, 20], 0.2)
    key, value = cache.keys[0], cache.values[0]
    assert relative_error(output[0], naive_attention(query[:1], key, value, 0.2)[0]) <= 2e-6
    assert relative_error(output[1], naive_attention(query[1:], key[:20], value[:20], 0.2)[0]) <= 2e-6


def test_the_inputs_are_left_alone(paged_cache):
    cache = paged_cache([20, 5], 2, 32, dtype=torch.float32, seed=6)
    query = torch.randn(2, 2, 32, generator=torch.Generator().manual_seed(6))
    before = [tensor.clone() for tensor in (query, cache.key, cache.value, cache.block_tables)]
    decode_attention_reference(query, cache.key, cache.value, cache.block_tables, [20, 5], 0.2)
    for tensor, copy in zip((query, cache.key, cache.value, cache.block_tables), before, strict=True):
        assert torch.equal(tensor, copy)
