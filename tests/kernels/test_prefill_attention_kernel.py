"""The prefill attention kernel, in Triton's interpreter, against the formula in float64."""

import itertools

import pytest
import torch

from tests.kernels.buffers import GuardedBuffers, kernel_of, random, relative_error
from zeroshot_kernels.prefill_attention.reference import prefill_attention_reference

kernel = kernel_of("prefill_attention")
prefill_attention = kernel.prefill_attention

triton = pytest.importorskip("triton")
tl = triton.language

TOLERANCES = {torch.float32: 1e-6, torch.float16: 1e-3}
"""No bfloat16: the interpreter multiplies its bits as integers in tl.dot. It is compiled, and tested on a GPU."""


class PagedPrompts:
    """Packed queries, pages in random order and in the CUDA runner's layout; what is outside the contexts is NaN."""

    def __init__(self, query_lens, context_lens, n_head, head_dim, *, block_size=64, dtype=torch.float32, seed=0):
        self.buffers = GuardedBuffers()
        rng = torch.Generator().manual_seed(seed)
        num_blocks_of = [-(-n // block_size) for n in context_lens]
        order = torch.randperm(sum(num_blocks_of) + 3, generator=rng).tolist()
        memory = self.buffers.poisoned(len(order), n_head, 2, block_size, head_dim, dtype=dtype)
        self.key, self.value = memory.permute(2, 0, 3, 1, 4)
        tables = torch.full((len(context_lens), max(num_blocks_of)), order[-1], dtype=torch.int32)
        self.contents = []
        for i, context_len in enumerate(context_lens):
            blocks = [order.pop(0) for _ in range(num_blocks_of[i])]
            tables[i, : len(blocks)] = torch.tensor(blocks, dtype=torch.int32)
            content = torch.randn(2, context_len, n_head, head_dim, generator=rng).to(dtype)
            self.contents.append(content)
            for j, block in enumerate(blocks):
                page = content[:, j * block_size : (j + 1) * block_size]
                self.key[block, : page.shape[1]], self.value[block, : page.shape[1]] = page
        self.block_tables = self.buffers.copy(tables)
        self.query_lens = self.buffers.copy(torch.tensor(query_lens, dtype=torch.int32))
        self.context_lens = self.buffers.copy(torch.tensor(context_lens, dtype=torch.int32))
        self.query = self.buffers.copy(random(sum(query_lens), n_head, head_dim, seed=seed + 1, dtype=dtype))

    def arguments(self):
        return self.key, self.value, self.block_tables, self.query_lens, self.context_lens

    def output(self, scale):
        out = self.buffers.poisoned(*self.query.shape, dtype=self.query.dtype)
        prefill_attention(self.query, *self.arguments(), scale, out=out)
        self.buffers.check()
        return out

    def errors(self, out, scale):
        found, start = [], 0
        for content, query_len in zip(self.contents, self.query_lens.tolist(), strict=True):
            key, value = content.double()
            rows = slice(start, start + query_len)
            scores = torch.einsum("qhd,nhd->hqn", self.query[rows].double(), key) * scale
            positions = torch.arange(len(key) - query_len, len(key))
            scores.masked_fill_(torch.arange(len(key)) > positions[:, None], -torch.inf)
            found.append(relative_error(out[rows], torch.einsum("hqn,nhd->qhd", scores.softmax(-1), value)))
            start += query_len
        return found


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_whole_prompts(dtype):
    lens = [1, 63, 64, 65, 100, 129, 200]
    prompts = PagedPrompts(lens, lens, 2, 64, dtype=dtype)
    found = prompts.errors(prompts.output(0.125), 0.125)
    assert max(found) <= TOLERANCES[dtype], found


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_chunks_over_earlier_context(dtype):
    prompts = PagedPrompts([1, 16, 20, 64, 2, 150], [300, 17, 64, 192, 5, 400], 1, 64, dtype=dtype, seed=1)
    found = prompts.errors(prompts.output(0.125), 0.125)
    assert max(found) <= TOLERANCES[dtype], found


@pytest.mark.parametrize("head_dim", [32, 80, 96, 128])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_other_head_dims(head_dim, dtype):
    prompts = PagedPrompts([33, 70], [33, 130], 1, head_dim, dtype=dtype, seed=head_dim)
    found = prompts.errors(prompts.output(0.1), 0.1)
    assert max(found) <= TOLERANCES[dtype], found


@pytest.mark.parametrize("block_size", [16, 48, 128])
def test_other_page_sizes(block_size):
    prompts = PagedPrompts([60, 30], [60, 140], 1, 64, block_size=block_size, seed=block_size)
    assert max(prompts.errors(prompts.output(0.125), 0.125)) <= 1e-6


def test_a_prompt_of_1023_tokens():
    prompts = PagedPrompts([1023], [1023], 1, 64, dtype=torch.float16, seed=3)
    assert max(prompts.errors(prompts.output(0.125), 0.125)) <= 1e-3


def test_a_sequence_without_new_tokens_and_rows_beyond_them_all():
    prompts = PagedPrompts([20, 0, 30], [20, 50, 40], 1, 64, seed=4)
    out = prompts.buffers.poisoned(60, 1, 64)
    query = torch.cat([prompts.query, random(10, 1, 64, seed=5)])
    prefill_attention(query, *prompts.arguments(), 0.125, out=out)
    assert out[50:].isnan().all()
    del prompts.contents[1]
    prompts.query_lens = prompts.query_lens[[0, 2]]
    assert max(prompts.errors(out, 0.125)) <= 1e-6


def test_agrees_with_the_pytorch_reference():
    prompts = PagedPrompts([20, 70], [50, 70], 2, 64, seed=6)
    key, value, *rest = prompts.arguments()
    expected = prefill_attention_reference(prompts.query, key.nan_to_num(), value.nan_to_num(), *rest, 0.2)
    assert relative_error(prompts.output(0.2), expected) <= 1e-6


def test_a_sequence_gets_the_same_bits_in_any_batch():
    prompts = PagedPrompts([40, 70, 33], [40, 100, 80], 1, 64, seed=7)
    together = prompts.output(0.125)
    key, value, tables, query_lens, context_lens = prompts.arguments()
    only = slice(1, 2)
    arguments = (prompts.query[40:110], key, value, tables[only], query_lens[only], context_lens[only])
    assert torch.equal(prefill_attention(*arguments, 0.125), together[40:110])


def test_the_strides_of_a_qkv_projection():
    prompts = PagedPrompts([20, 70], [50, 70], 2, 64, seed=8)
    qkv = torch.stack([prompts.query, prompts.query + 1, prompts.query - 1], dim=1)
    assert torch.equal(prefill_attention(qkv[:, 0], *prompts.arguments(), 0.125), prompts.output(0.125))


def test_what_does_not_fit_is_refused_with_both_values():
    prompts = PagedPrompts([20], [50], 2, 64, seed=9)
    with pytest.raises(ValueError, match=r"float16.*float32"):
        prefill_attention(prompts.query.half(), *prompts.arguments(), 0.125)
    with pytest.raises(ValueError, match=r"1 block tables, 2 query lens"):
        prefill_attention(prompts.query, *prompts.arguments()[:3], torch.ones(2), prompts.context_lens, 0.125)


@triton.jit
def longest_first_kernel(out_ptr, query_lens_ptr, context_lens_ptr, num_seqs: tl.constexpr, block_m: tl.constexpr):
    offs = tl.arange(0, num_seqs)
    lens = tl.load(query_lens_ptr + offs), tl.load(context_lens_ptr + offs)
    seq, block = kernel.longest_first(*lens, tl.program_id(0), block_m, 6)
    tl.store(out_ptr + 2 * tl.program_id(0), seq)
    tl.store(out_ptr + 2 * tl.program_id(0) + 1, block)


@pytest.mark.parametrize("block_m", [32, 64])
def test_programs_take_each_block_once_and_those_that_see_the_most_keys_first(block_m):
    """Or the grid would end on a long one, while the rest of the card has nothing to do."""
    query_lens = torch.tensor([1024, 1, 0, 64, 65, 33, 300, 1], dtype=torch.int32)
    context_lens = query_lens + torch.tensor([0, 700, 50, 0, 130, 0, 63, 0], dtype=torch.int32)
    blocks_of = [-(-n // block_m) for n in query_lens.tolist()]
    buffers = GuardedBuffers()
    out = buffers.poisoned(sum(blocks_of), 2, dtype=torch.int32)
    longest_first_kernel[(len(out),)](out, query_lens, context_lens, num_seqs=8, block_m=block_m)
    buffers.check()
    found = [(seq, block) for seq, block in out.tolist()]
    assert sorted(found) == [(seq, block) for seq, count in enumerate(blocks_of) for block in range(count)]
    ahead = [int(context_lens[seq] - query_lens[seq]) + block * block_m for seq, block in found]
    assert all(after // block_m <= before // block_m for before, after in itertools.pairwise(ahead))
