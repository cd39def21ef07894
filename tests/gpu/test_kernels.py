"""Every kernel, compiled, against its reference in float64 on the same inputs: ragged lengths, all three dtypes.

bf16 products, races and reads past a buffer are invisible to the interpreter; here they are not. Whatever a kernel may
not read is NaN.
"""

import pytest
import torch

from zeroshot.model.ops import Ops
from zeroshot.model.triton_ops import load_kernel

LENS = [1, 63, 100, 1023, 1024, 64, 257, 512]
TOLERANCES = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
SUMS_TOLERANCE = 2e-5
"""Of float32 sums of half-precision products: tensor cores add with fewer bits than float32 has."""


@pytest.fixture(params=TOLERANCES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request):
    return request.param


@pytest.fixture
def randn(dtype, cuda):
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator).to(cuda, dtype)


def assert_close(found, expected, dtype):
    assert relative_error(found, expected) < TOLERANCES[dtype]


def relative_error(found, expected):
    return float((found.double().cpu() - expected).norm() / expected.norm())


def doubles(*tensors):
    return [tensor.double().cpu() for tensor in tensors]


def paged(randn, lens, n_head, head_dim, page_size):
    """(key cache, value cache, block tables, each of the keys and values): pages in random order, the rest NaN."""
    pages_of = [-(-n // page_size) for n in lens]
    order = torch.randperm(sum(pages_of) + 3, generator=torch.Generator().manual_seed(1)).tolist()
    memory = randn(len(order), n_head, 2, page_size, head_dim).fill_(torch.nan)
    key_cache, value_cache = memory.permute(2, 0, 3, 1, 4)
    tables = torch.full((len(lens), max(pages_of)), order[-1], dtype=torch.int32)
    contents = []
    for i, n in enumerate(lens):
        pages = [order.pop(0) for _ in range(pages_of[i])]
        tables[i, : len(pages)] = torch.tensor(pages)
        key, value = randn(n, n_head, head_dim), randn(n, n_head, head_dim)
        for start in range(0, n, page_size):
            rows = min(page_size, n - start)
            key_cache[pages[start // page_size], :rows] = key[start : start + rows]
            value_cache[pages[start // page_size], :rows] = value[start : start + rows]
        contents.append((key, value))
    return key_cache, value_cache, tables.to(memory.device), contents


def naive_attention(query, key, value, scale):
    """query: [query_len, n_head, head_dim]; the last query sees everything."""
    query, key, value = doubles(query, key, value)
    scores = torch.einsum("qhd,khd->hqk", query, key) * scale
    sees = torch.arange(len(key)) <= torch.arange(len(key) - len(query), len(key))[:, None]
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~sees, -torch.inf).softmax(-1), value)


@pytest.mark.parametrize(("n_head", "head_dim"), [(12, 64), (3, 80), (2, 128), (4, 32)])
@pytest.mark.parametrize("page_size", [16, 64])
def test_decode_attention(randn, dtype, n_head, head_dim, page_size):
    *caches, tables, contents = paged(randn, LENS, n_head, head_dim, page_size)
    query = randn(len(LENS), n_head, head_dim)
    lens = torch.tensor(LENS, dtype=torch.int32, device=query.device)
    decode_attention = load_kernel("decode_attention")
    out = decode_attention(query, *caches, tables, lens, head_dim**-0.5)
    expected = torch.cat([naive_attention(q[None], *kv, head_dim**-0.5) for q, kv in zip(query, contents, strict=True)])
    assert_close(out, expected, dtype)
    for _ in range(20):  # the last program to arrive merges: whichever that is, the same bits
        assert torch.equal(decode_attention(query, *caches, tables, lens, head_dim**-0.5), out)
    alone = decode_attention(query[3:4], *caches, tables[3:4], lens[3:4], head_dim**-0.5)
    assert torch.equal(alone, out[3:4]), "the same bits in any batch"


@pytest.mark.parametrize(("n_head", "head_dim"), [(12, 64), (3, 80), (2, 128)])
def test_prefill_attention(randn, dtype, n_head, head_dim):
    query_lens = [1, 63, 17, 1023, 500, 64, 1, 130]
    *caches, tables, contents = paged(randn, LENS, n_head, head_dim, 64)
    query = randn(sum(query_lens), n_head, head_dim)
    lens = [torch.tensor(values, dtype=torch.int32, device=query.device) for values in (query_lens, LENS)]
    out = load_kernel("prefill_attention")(query, *caches, tables, *lens, head_dim**-0.5)
    parts = zip(query.split(query_lens), contents, strict=True)
    assert_close(out, torch.cat([naive_attention(q, *kv, head_dim**-0.5) for q, kv in parts]), dtype)


def test_kv_append(randn, cuda):
    memory = randn(4, 3, 2, 16, 64)
    _, key, value = randn(5, 3, 3, 64).unbind(1)
    slots = torch.tensor([63, 0, -1, 17, 10**6], dtype=torch.int32, device=cuda)
    found, expected = memory.clone(), memory.clone()
    load_kernel("kv_append")(key, value, slots, *found.permute(2, 0, 3, 1, 4))
    Ops().kv_append(key, value, slots, *expected.permute(2, 0, 3, 1, 4))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("n_embd", [64, 768, 1024, 1280, 1600])
def test_layer_norm(randn, dtype, n_embd):
    hidden, residual, weight, bias = randn(33, n_embd), 300 * randn(33, n_embd).float(), randn(n_embd), randn(n_embd)
    out, new_residual = load_kernel("layer_norm")(hidden, residual, weight, bias, 1e-5)
    expected = Ops().layer_norm(*doubles(hidden, residual, weight, bias), 1e-5)
    assert_close(out, expected[0], dtype)
    assert_close(new_residual, expected[1], torch.float32)


@pytest.mark.parametrize("width", [100, 3072, 6400])
def test_bias_gelu(randn, dtype, width):
    hidden, bias = randn(17, width), randn(width)
    assert_close(load_kernel("bias_gelu")(hidden, bias), Ops().bias_gelu(*doubles(hidden, bias)), dtype)


@pytest.mark.parametrize("num_rows", [1, 7, 33, 64, 200])
def test_logits_of_lm_head_sampling_and_their_best(randn, dtype, cuda, num_rows):
    hidden, lm_head = randn(num_rows, 768), randn(50257, 768) / 8
    logits = torch.full((num_rows, 50304), torch.nan, device=cuda)[:, :50257]
    longs = torch.arange(num_rows, device=cuda)
    greedy = torch.zeros(num_rows, device=cuda)
    token_ids, logprobs, is_valid = load_kernel("lm_head_sampling")(
        hidden, lm_head, greedy, longs, longs, longs, logits=logits
    )
    expected = torch.nn.functional.linear(*doubles(hidden, lm_head))
    assert relative_error(logits, expected) < SUMS_TOLERANCE
    assert is_valid.all()
    assert torch.equal(token_ids, logits.argmax(-1))
    chosen = logits.double().log_softmax(-1).gather(1, token_ids[:, None]).squeeze(1)
    torch.testing.assert_close(logprobs.double(), chosen, rtol=1e-4, atol=1e-4)


def test_logprobs(randn, dtype, cuda):
    hidden, lm_head = randn(300, 768), randn(50257, 768) / 8
    targets = torch.arange(300, device=cuda) * 167
    logprobs, ranks = load_kernel("logprobs")(hidden, lm_head, targets)
    expected, expected_ranks = Ops().logprobs(*doubles(hidden, lm_head), targets.cpu())
    assert relative_error(logprobs, expected) < SUMS_TOLERANCE
    assert float((ranks.cpu() - expected_ranks).abs().max()) <= 2, "float32 sums may swap neighbours"


def test_sampling_draws_the_references_tokens(cuda):
    generator = torch.Generator().manual_seed(3)
    filters = [(0.0, 0, 1.0, 0.0), (1.0, 0, 1.0, 0.0), (0.7, 50, 1.0, 0.0), (1.0, 0, 0.9, 0.0), (1.3, 1000, 0.95, 0.01)]
    rows = [row for row in filters for _ in range(20)]
    logits = (3 * torch.randn(len(rows), 50304, generator=generator))[:, :50257]
    temperatures, top_ks, top_ps, min_ps = (torch.tensor(column) for column in zip(*rows, strict=True))
    seeds = torch.arange(len(rows)) * 10**15
    arguments = (temperatures, top_ks.int(), top_ps, min_ps, seeds, seeds % 3, seeds % 1000)
    on_gpu = torch.zeros(len(rows), 50304, device=cuda)[:, :50257]
    on_gpu.copy_(logits)
    found = load_kernel("sampling")(on_gpu, *(argument.to(cuda) for argument in arguments))
    expected = Ops().sampling(logits.contiguous(), *arguments)
    # A nearly equal runner-up may win by a rounding of exp: more than one such in a hundred would be no rounding.
    assert int((found[0].cpu() != expected[0]).sum()) <= 1
    assert found[2].all()


def test_logit_adjustment(cuda):
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(3, 50257, generator=generator)
    entries = torch.randperm(3 * 50257, generator=generator)[:700]
    arguments = (
        (entries // 50257).int(),
        (entries % 50257).int(),
        torch.randn(700, generator=generator),
        torch.rand(700, generator=generator) < 0.5,
        torch.randint(0, 4, (700,), generator=generator, dtype=torch.int32),
        *torch.tensor([[1.3, 1.0, 0.7], [0.5, 0.0, -1.0], [0.2, 0.1, 0.0]]),
    )
    found, expected = logits.to(cuda), logits.clone()
    load_kernel("logit_adjustment")(found, *(argument.to(cuda) for argument in arguments))
    Ops().logit_adjustment(expected, *arguments)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-6, atol=1e-6)


def test_embedding(randn, dtype, cuda):
    token_ids, positions = torch.tensor([50256, 0, 7], device=cuda), torch.tensor([1023, 0, 9], device=cuda)
    wte, wpe = randn(50257, 768), randn(1024, 768)
    for use_pdl in (False, True) if torch.cuda.get_device_capability() >= (9, 0) else (False,):
        found = load_kernel("embedding")(token_ids, positions, wte, wpe, use_pdl=use_pdl)
        assert torch.equal(found, wte[token_ids].float() + wpe[positions].float())


@pytest.mark.parametrize("rows", [None, [299, 3, 150]])
def test_advance(cuda, rows):
    generator = torch.Generator().manual_seed(5)

    def longs(high, count=300):
        return torch.randint(0, high, (count,), generator=generator)

    positions, count = longs(1000), 300 if rows is None else len(rows)
    words = (positions + 1).int(), torch.randint(0, 99, (300, 1024), generator=generator).int()
    state = [longs(1000), longs(99), positions, positions + 1, *words, longs(99).int(), longs(99)]
    drawn = longs(50257, count), longs(2, count) > 0, None if rows is None else torch.tensor(rows)
    found = [tensor.to(cuda) for tensor in state]
    load_kernel("advance")(*(tensor if tensor is None else tensor.to(cuda) for tensor in drawn), *found)
    Ops().advance(*drawn, *state)
    for tensor, expected in zip(found, state, strict=True):
        assert torch.equal(tensor.cpu(), expected)
