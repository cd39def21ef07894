"""The C++ kernel that draws tokens: `sample_reference`'s draws, one thread or several, alone and among other rows."""

import shutil
from collections import Counter

import pytest
import torch

from zeroshot.engine.sampler import sample
from zeroshot.engine.sequence import Sequence
from zeroshot.types import SamplingParams
from zeroshot_kernels.cpu.draw import draw
from zeroshot_kernels.sampling.reference import sample_reference

# Where there is a compiler the kernels must be there: a mistake in them is no reason to skip what would find it.
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")


def keys(num_rows, seed):
    """Seeds, choices, positions."""
    generator = torch.Generator().manual_seed(seed)
    ranges = ((0, 2**63 - 1), (0, 128), (1, 1024))
    return [torch.randint(*bounds, (num_rows,), generator=generator) for bounds in ranges]


def reference(logits, temperatures, seeds, choices, positions):
    filters = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
    rows = zip(logits, *(values.tolist() for values in (temperatures, seeds, choices, positions)), strict=True)
    return [
        sample_reference(row, temperature=temperature, seed=seed, choice=choice, position=position, **filters)
        for row, temperature, seed, choice, position in rows
    ]


@pytest.mark.parametrize("vocab_size", [1, 5, 8, 17, 1000, 4095, 4096, 4097, 50257])
@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 10.0, 1000.0])
def test_it_draws_what_the_reference_draws(vocab_size, spread):
    """Also of rows with a gap between them, as the LM head leaves it."""
    num_rows = 7
    generator = torch.Generator().manual_seed(vocab_size)
    logits = spread * torch.randn(num_rows, vocab_size + 3, generator=generator)[:, :vocab_size]
    temperatures = torch.tensor([1e-30, 0.01, 0.5, 1.0, 1.0, 2.0, 1e6])
    drawn = keys(num_rows, seed=vocab_size)
    found = draw(logits, temperatures, *drawn)
    assert found.tolist() == reference(logits, temperatures, *drawn)
    alone = [
        draw(logits[i : i + 1], temperatures[i : i + 1], *(key[i : i + 1] for key in drawn)) for i in range(num_rows)
    ]
    assert torch.cat(alone).tolist() == found.tolist()


def test_threads_make_no_difference():
    logits, temperatures, drawn = torch.randn(3, 50257), torch.ones(3), keys(3, seed=1)
    num_threads = torch.get_num_threads()
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(draw(logits, temperatures, *drawn).tolist())
    torch.set_num_threads(num_threads)
    assert found[0] == found[1] == found[2]


def test_draws_have_the_frequencies_of_the_softmax():
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    num_draws, logits = 20_000, torch.linspace(-3, 3, 40)[order]
    positions = torch.arange(1, num_draws + 1)
    same = torch.zeros(num_draws, dtype=torch.int64)
    found = draw(logits.expand(num_draws, -1).contiguous(), torch.full((num_draws,), 1.3), same + 5, same, positions)
    counts = torch.tensor([Counter(found.tolist())[token] for token in range(40)]).double()
    expected = num_draws * (logits.double() / 1.3).softmax(0)
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 76.1, "one in ten thousand of right samplers has more, with 39 degrees of freedom"


def test_the_sampler_draws_the_same_with_it():
    """Only what needs a temperature and nothing else is drawn by it; a row that is not finite is not."""
    asked = [
        {"temperature": 1.0},
        {"temperature": 0.0},
        {"temperature": 0.7, "logprobs": 3},
        {"temperature": 0.7, "top_k": 5},
        {"temperature": 0.7, "top_p": 0.5},
        {"temperature": 0.7, "min_p": 0.1},
        {"temperature": 0.9, "repetition_penalty": 1.3},
        {"temperature": 0.9, "min_tokens": 9},
        {"temperature": 1e-45},
        {"temperature": 1.0},
    ]
    sequences = [Sequence(str(i), i, [1, 2, 3], 3, SamplingParams(seed=i, **params)) for i, params in enumerate(asked)]
    logits = torch.randn(len(asked), 300)
    logits[-1, 7] = torch.nan
    num_drawn = []

    def counted(rows, *arguments):
        num_drawn.append(len(rows))
        return draw(rows, *arguments)

    assert sample(logits, sequences, 50256, counted) == sample(logits, sequences, 50256)
    assert num_drawn == [2]
