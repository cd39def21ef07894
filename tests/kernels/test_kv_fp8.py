"""A KV cache in FP8: what is written is E4M3's nearest, and attention is exact on what is stored."""

import pytest
import torch

from tests.kernels.buffers import GuardedBuffers, kernel_of, random, relative_error
from tests.kernels.paged import PagedCache
from tests.kernels.test_ln_qkv_append import inputs as qkv_inputs
from zeroshot_kernels.decode_attention.reference import decode_attention_reference
from zeroshot_kernels.kv_append.reference import kv_append_reference
from zeroshot_kernels.ln_qkv_append.reference import ln_qkv_append_reference
from zeroshot_kernels.paged_cache import to_e4m3
from zeroshot_kernels.prefill_attention.reference import prefill_attention_reference

append = kernel_of("kv_append").kv_append
FP8 = torch.float8_e4m3fn
KEY_SCALES, VALUE_SCALES = torch.tensor([2.0**-5, 2.0**-3]), torch.tensor([2.0**-6, 2.0**-4])
E4M3_HALF_STEP = 2.0**-4
"""Of a value's size, at most: three bits behind the point."""


def bits(tensor):
    return tensor.view(torch.uint8)


def written(op, key, value, *scales):
    cache = torch.zeros(2, 64, *key.shape[1:], dtype=FP8), torch.zeros(2, 64, *key.shape[1:], dtype=FP8)
    op(key, value, torch.arange(len(key)), *cache, *scales)
    return cache


def test_every_value_is_written_as_pytorch_rounds_it():
    """All of E4M3's values, all midpoints between two and their neighbours in float32; infinities and NaN."""
    values = torch.arange(127, dtype=torch.uint8).view(FP8).float()
    middles = (values[1:] + values[:-1]) / 2
    edges = torch.cat([values, middles, middles.nextafter(values[1:]), middles.nextafter(values[:-1])])
    edges = torch.cat([edges, torch.tensor([500.0, 1e30, torch.inf, torch.nan, 1e-30])])
    edges = torch.nn.functional.pad(torch.cat([edges, -edges]), (0, -2 * len(edges) % 32)).view(-1, 2, 16)
    ones = torch.ones(2)
    key, value = written(append, edges, edges.flip(0), ones, ones)
    rounded = edges.clamp(-448, 448).to(FP8)
    assert torch.equal(bits(key).flatten(0, 1)[: len(edges)], bits(rounded))
    assert torch.equal(bits(value).flatten(0, 1)[: len(edges)], bits(rounded.flip(0)))
    assert torch.equal(to_e4m3(edges, ones).float().nan_to_num(7.0), rounded.float().nan_to_num(7.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_kernel_writes_the_references_bits_with_a_scale_a_head(dtype):
    key, value = random(2, 20, 2, 80, seed=0, dtype=dtype)
    scales = (KEY_SCALES, VALUE_SCALES)
    found, expected = written(append, key, value, *scales), written(kv_append_reference, key, value, *scales)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(bits(a), bits(b))
    stored = found[0].flatten(0, 1)[:20].double() * KEY_SCALES[:, None].double()
    normal = key.abs() > KEY_SCALES[:, None] * 2.0**-6
    assert ((stored - key.double()).abs() <= E4M3_HALF_STEP * key.double().abs())[normal].all()


def quantised(cache):
    """The same pages in FP8 where they hold something (NaN elsewhere stays), and the contents as they are stored."""
    key, value = to_e4m3(cache.key, KEY_SCALES), to_e4m3(cache.value, VALUE_SCALES)
    for contents, scales in ((cache.keys, KEY_SCALES), (cache.values, VALUE_SCALES)):
        contents[:] = [to_e4m3(rows, scales).double() * scales[:, None].double() for rows in contents]
    return key, value


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("op", ["decode_attention", "split_attention"])
def test_decode_attention_is_exact_on_what_is_stored(op, dtype):
    attention = getattr(kernel_of(op), op)
    cache = PagedCache(GuardedBuffers(), [1, 64, 130], 2, 64)
    query = random(3, 2, 64, seed=1, dtype=dtype)
    unquantised = cache.expected(query, 0.125)
    arguments = (*quantised(cache), cache.block_tables, cache.context_lens, 0.125, KEY_SCALES, VALUE_SCALES)
    out = attention(query, *arguments)
    if op == "split_attention":
        from tests.kernels.test_split_attention import merged

        out = merged(out, cache.context_lens)
    tolerance = 1e-3 if out.dtype == torch.float16 else 1e-6
    assert relative_error(out, cache.expected(query, 0.125)) <= tolerance
    finite = [tensor.float().nan_to_num().to(FP8) for tensor in arguments[:2]]
    reference = decode_attention_reference(query, *finite, *arguments[2:])
    assert relative_error(reference, cache.expected(query, 0.125)) <= max(tolerance, 2e-3 * (dtype == torch.float16))
    # Against keys and values as they were: weights change by the scores' rounding, values by theirs.
    assert relative_error(out, unquantised) <= 2 * E4M3_HALF_STEP


@pytest.mark.parametrize(("head_dim", "block_size"), [(64, 64), (80, 16), (128, 48), (32, 64)])
def test_decode_attention_ends_in_any_tile_of_any_page(head_dim, block_size):
    """Four tiles are loaded together, and a split of an FP8 cache has twice SPLIT_SIZE tokens."""
    decode = kernel_of("decode_attention")
    lens = [1, 15, 31, 33, 65, 129, 2 * decode.SPLIT_SIZE, 2 * decode.SPLIT_SIZE + 31]
    cache = PagedCache(GuardedBuffers(), lens, 2, head_dim, block_size=block_size, seed=head_dim)
    query = random(len(lens), 2, head_dim, seed=3)
    caches = quantised(cache)
    out = decode.decode_attention(query, *caches, *cache.arguments()[2:], 0.125, KEY_SCALES, VALUE_SCALES)
    assert relative_error(out, cache.expected(query, 0.125)) <= 1e-6
    for row in (4, 7):
        one = slice(row, row + 1)
        alone = (query[one], *caches, cache.block_tables[one], cache.context_lens[one], 0.125, KEY_SCALES, VALUE_SCALES)
        assert torch.equal(decode.decode_attention(*alone)[0], out[row])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_prefill_attention_is_exact_on_what_is_stored(dtype):
    attention = kernel_of("prefill_attention").prefill_attention
    cache = PagedCache(GuardedBuffers(), [5, 70], 2, 64)
    query_lens = [5, 33]
    query = random(38, 2, 64, seed=2, dtype=dtype)
    caches = quantised(cache)
    lens = torch.tensor(query_lens, dtype=torch.int32), cache.context_lens
    scales = (KEY_SCALES, VALUE_SCALES)
    out = attention(query, *caches, cache.block_tables, *lens, 0.125, *scales)
    rows = []
    for start, length, key, value in zip([0, 5], query_lens, cache.keys, cache.values, strict=True):
        scores = torch.einsum("qhd,khd->hqk", query[start : start + length].double(), key) * 0.125
        sees = torch.arange(len(key)) <= torch.arange(len(key) - length, len(key))[:, None]
        rows.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~sees, -torch.inf).softmax(-1), value))
    assert relative_error(out, torch.cat(rows)) <= (1e-3 if dtype == torch.float16 else 1e-6)
    finite = [tensor.float().nan_to_num().to(FP8) for tensor in caches]
    reference = prefill_attention_reference(query, *finite, cache.block_tables, *lens, 0.125, *scales)
    assert relative_error(reference, torch.cat(rows)) <= (2e-3 if dtype == torch.float16 else 1e-6)


def test_the_fused_kernel_writes_what_the_reference_writes():
    """Keys and values are rounded once, from float32. Two sums in another order may fall on either side of a middle."""
    fused = kernel_of("ln_qkv_append").ln_qkv_append
    arguments, memory = qkv_inputs(GuardedBuffers(), 2, 2, 16, torch.float32)
    scales = (torch.tensor([0.25, 0.5]), torch.tensor([0.125, 0.25]))
    memories = [to_e4m3(memory.float(), torch.ones(64)) for _ in range(2)]
    for op, into in zip((fused, ln_qkv_append_reference), memories, strict=True):
        op(*arguments, *into.permute(2, 0, 3, 1, 4), *scales)
    a, b = (bits(memory).int() for memory in memories)
    assert (a != b).float().mean() < 1e-3
    assert (a - b).abs().max() <= 1
    plain = memory.clone()
    fused(*arguments, *plain.permute(2, 0, 3, 1, 4))
    slot = int(arguments[-1][1])
    for part in range(2):
        expected = plain[slot // 64, :, part, slot % 64]
        stored = memories[0][slot // 64, :, part, slot % 64].float() * scales[part][:, None]
        assert relative_error(stored, expected) <= E4M3_HALF_STEP


def test_what_does_not_fit_is_refused_with_both_values():
    key = random(3, 2, 16, seed=5)
    with pytest.raises(ValueError, match=r"float32.*float8_e4m3fn"):
        append(key, key, torch.arange(3), *torch.zeros(2, 1, 16, 2, 16), KEY_SCALES, VALUE_SCALES)
    with pytest.raises(ValueError, match=r"float8_e4m3fn.*float32"):
        written(append, key, key)
    with pytest.raises(ValueError, match=r"\(1,\).*\(2,\).*2 heads"):
        written(append, key, key, KEY_SCALES[:1], VALUE_SCALES)
