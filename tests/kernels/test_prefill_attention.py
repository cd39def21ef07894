"""Packed prompt chunks over a paged cache, against the formula in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroshot_kernels.prefill_attention.reference import prefill_attention_reference

LENS = [1, 15, 16, 17, 63, 100]


def packed_query(query_lens, n_head, head_dim, dtype, seed):
    return torch.randn(sum(query_lens), n_head, head_dim, generator=torch.Generator().manual_seed(seed)).to(dtype)


def errors(naive_attention, relative_error, output, query, cache, query_lens, scale):
    found, start = [], 0
    for i, query_len in enumerate(query_lens):
        rows = slice(start, start + query_len)
        expected = naive_attention(query[rows], cache.keys[i], cache.values[i], scale)
        found.append(relative_error(output[rows], expected))
        start += query_len
    return found


@pytest.mark.parametrize("head_dim", [32, 64, 80])
def test_whole_prompts(paged_cache, naive_attention, relative_error, dtype, tolerance, head_dim):
    cache = paged_cache(LENS, 2, head_dim, dtype=dtype, seed=head_dim)
    query = packed_query(LENS, 2, head_dim, dtype, 1)
    scale = head_dim**-0.5
    output = prefill_attention_reference(query, cache.key, cache.value, cache.block_tables, LENS, LENS, scale)
    assert output.shape == query.shape
    assert output.dtype == dtype
    found = errors(naive_attention, relative_error, output, query, cache, LENS, scale)
    assert max(found) <= tolerance, found


def test_chunks_over_earlier_context(paged_cache, naive_attention, relative_error, dtype, tolerance):
    context_lens, query_lens = [100, 17, 64, 33, 5], [1, 16, 20, 32, 2]
    cache = paged_cache(context_lens, 2, 32, dtype=dtype, seed=2)
    query = packed_query(query_lens, 2, 32, dtype, 2)
    output = prefill_attention_reference(
        query, cache.key, cache.value, cache.block_tables, query_lens, context_lens, 0.2
    )
    found = errors(naive_attention, relative_error, output, query, cache, query_lens, 0.2)
    assert max(found) <= tolerance, found


@pytest.mark.parametrize(("query_len", "context_len"), [(1023, 1023), (1024, 1024), (1, 1024), (1023, 1024), (7, 1023)])
def test_a_full_context(paged_cache, naive_attention, relative_error, query_len, context_len):
    cache = paged_cache([context_len], 1, 32, dtype=torch.float32, seed=3)
    query = packed_query([query_len], 1, 32, torch.float32, 3)
    output = prefill_attention_reference(
        query, cache.key, cache.value, cache.block_tables, [query_len], [context_len], 0.2
    )
    found = errors(naive_attention, relative_error, output, query, cache, [query_len], 0.2)
    assert max(found) <= 2e-6, found


def test_no_token_sees_a_later_one(paged_cache):
    cache = paged_cache([40], 2, 32, dtype=torch.float32, seed=4)
    query = packed_query([40], 2, 32, torch.float32, 4)
    arguments = (cache.block_tables, [40], [40], 0.2)
    before = prefill_attention_reference(query, cache.key, cache.value, *arguments)
    block, offset = int(cache.block_tables[0, 30 // 16]), 30 % 16
    cache.key[block, offset] += 1.0
    cache.value[block, offset] += 1.0
    after = prefill_attention_reference(query, cache.key, cache.value, *arguments)
    assert torch.equal(before[:30], after[:30])
    assert (before[30:] - after[30:]).abs().amax(dim=(1, 2)).min() > 0


@settings(max_examples=25)
@given(data=st.data())
def test_any_ragged_batch(paged_cache, naive_attention, relative_error, data):
    context_lens = data.draw(st.lists(st.integers(1, 70), min_size=1, max_size=5))
    query_lens = [data.draw(st.integers(1, n)) for n in context_lens]
    cache = paged_cache(context_lens, 2, 8, dtype=torch.float32, seed=len(context_lens))
    query = packed_query(query_lens, 2, 8, torch.float32, 5)
    output = prefill_attention_reference(
        query, cache.key, cache.value, cache.block_tables, query_lens, context_lens, 0.35
    )
    assert max(errors(naive_attention, relative_error, output, query, cache, query_lens, 0.35)) <= 5e-6
