"""Embeddings of tokens and positions: reference and kernel against the sum."""

import pytest
import torch

from tests.kernels.buffers import GuardedBuffers, kernel_of, random
from zeroshot_kernels.embedding.reference import embedding_reference


def inputs(n_embd, dtype):
    wte, wpe = random(30, n_embd, seed=0, dtype=dtype), random(9, n_embd, seed=1, dtype=dtype)
    return torch.tensor([29, 0, 7, 7]), torch.tensor([8, 0, 3, 3]), wte, wpe


def summed(token_ids, positions, wte, wpe):
    rows = zip(token_ids.tolist(), positions.tolist(), strict=True)
    return torch.stack([wte[token_id].float() + wpe[position].float() for token_id, position in rows])


@pytest.mark.parametrize("n_embd", [5, 64, 768])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_reference_and_kernel_are_the_sum_in_float32(n_embd, dtype):
    expected = summed(*inputs(n_embd, dtype))
    assert torch.equal(embedding_reference(*inputs(n_embd, dtype)), expected)
    buffers = GuardedBuffers()
    arguments = [buffers.copy(tensor) for tensor in inputs(n_embd, dtype)]
    out = buffers.poisoned(4, n_embd)
    assert kernel_of("embedding").embedding(*arguments, out=out) is out
    assert torch.equal(out, expected)
    buffers.check()


def test_the_reference_keeps_float64():
    doubles = [tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs(8, torch.float32)]
    assert embedding_reference(*doubles).dtype == torch.float64


def test_what_does_not_fit_is_refused_with_both_values():
    embedding = kernel_of("embedding").embedding
    token_ids, positions, wte, wpe = inputs(8, torch.float32)
    with pytest.raises(ValueError, match="4 tokens, 3 positions"):
        embedding(token_ids, positions[:3], wte, wpe)
    with pytest.raises(ValueError, match="8 and 7 elements"):
        embedding(token_ids, positions, wte, wpe[:, :7])
    with pytest.raises(ValueError, match="wte: the last axis"):
        embedding(token_ids, positions, wte.t().contiguous().t(), wpe)
