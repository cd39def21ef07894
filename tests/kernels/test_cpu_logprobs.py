"""The C++ kernel for log-probabilities, against PyTorch's log_softmax and topk in float64."""

import shutil

import pytest
import torch

from zeroshot_kernels.cpu.logprobs import logprobs

# Where there is a compiler the kernels must be there: a mistake in them is no reason to skip what would find it.
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")


@pytest.mark.parametrize("vocab_size", [1, 5, 17, 1000, 4096, 4097, 50257])
@pytest.mark.parametrize("num_top", [0, 1, 5, 20])
@pytest.mark.parametrize("spread", [0.01, 1.0, 5.0, 100.0])
def test_it_finds_what_log_softmax_and_topk_find(vocab_size, num_top, spread):
    """Of rows with a gap between them, as the LM head leaves it."""
    num_rows, num_top = 5, min(num_top, vocab_size)
    generator = torch.Generator().manual_seed(vocab_size)
    logits = spread * torch.randn(num_rows, vocab_size + 3, generator=generator)[:, :vocab_size]
    targets = torch.randint(vocab_size, (num_rows,), generator=generator)
    targets[0] = logits[0].argmax()
    found, ids = logprobs(logits, targets, num_top)
    expected = logits.double().log_softmax(1)
    best = logits.topk(num_top)
    chosen = logits.gather(1, targets[:, None])
    assert torch.equal(ids[:, 0], (logits > chosen).sum(1) + 1)
    assert torch.equal(ids[:, 1:], best.indices)
    expected = torch.cat([expected.gather(1, targets[:, None]), expected.gather(1, best.indices)], 1)
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=2e-6)


def test_of_equal_logits_the_first_comes_first():
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0]])
    _, ids = logprobs(logits, torch.tensor([4]), 4)
    assert ids.tolist() == [[1, 1, 2, 4, 3]]
    _, ids = logprobs(torch.zeros(1, 50257), torch.tensor([50256]), 20)
    assert ids.tolist() == [[1, *range(20)]]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 39, 99])
def test_a_row_that_is_not_finite_gets_nan_and_the_others_what_is_theirs(bad, place):
    logits = torch.randn(3, 100)
    logits[1, place] = bad
    found, ids = logprobs(logits, torch.tensor([1, 2, 3]), 2)
    assert found[1].isnan().all()
    assert ids[1].tolist() == [0, 0, 0]
    expected = logits[[0, 2]].log_softmax(1)[[0, 1], [1, 3]]
    torch.testing.assert_close(found[[0, 2], 0], expected)


def test_logits_that_are_farther_apart_than_float32_reaches():
    logits = torch.tensor([[3e38, -3e38, -1e38, 3e38]])
    found, ids = logprobs(logits, torch.tensor([2]), 4)
    assert ids.tolist() == [[3, 0, 3, 2, 1]]
    assert found[0].tolist() == pytest.approx([-torch.inf, -0.6931472, -0.6931472, -torch.inf, -torch.inf])


def test_threads_make_no_difference():
    logits, targets = torch.randn(7, 50257), torch.arange(7)
    num_threads = torch.get_num_threads()
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(torch.cat(logprobs(logits, targets, 5)))
    torch.set_num_threads(num_threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
