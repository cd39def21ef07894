"""Logit bias and penalties at listed entries: reference and kernel against what the CPU's sampler does to a row."""

import pytest
import torch

from tests.kernels.buffers import GuardedBuffers, kernel_of, random
from zeroshot_kernels.logit_adjustment.reference import logit_adjustment_reference
from zeroshot_kernels.sampling.reference import Adjustment, adjust_reference

VOCAB_SIZE = 300
REQUESTS = [
    {"prompt": [1, 2, 2, 3], "output": [3, 4, 4, 4], "bias": {4: 2.5, 9: -100.0}, "penalties": (1.3, 0.5, 0.25)},
    {"prompt": [7], "output": [], "bias": {}, "penalties": (0.7, 1.0, 1.0)},
    {"prompt": [5], "output": [5, 6], "bias": {6: -torch.inf, 299: 1.0}, "penalties": (1.0, -2.0, 0.0)},
    {"prompt": [0, 8], "output": [8], "bias": {0: 3.0}, "penalties": (2.0, 0.0, 0.0)},
]


def entries(requests):
    """The arguments after `logits`, as the runner would list them; the last two entries are unused places."""
    rows, token_ids, biases, is_seen, counts = [], [], [], [], []
    for row, request in enumerate(requests):
        seen = {*request["prompt"], *request["output"]}
        for token_id in sorted(seen | request["bias"].keys()):
            rows.append(row)
            token_ids.append(token_id)
            biases.append(request["bias"].get(token_id, 0.0))
            is_seen.append(token_id in seen)
            counts.append(request["output"].count(token_id))
    return (
        torch.tensor([*rows, len(requests), -1], dtype=torch.int32),
        torch.tensor([*token_ids, 5, 5], dtype=torch.int32),
        torch.tensor([*biases, 1.0, 1.0]),
        torch.tensor([*is_seen, True, True]),
        torch.tensor([*counts, 1, 1], dtype=torch.int32),
        *torch.tensor([request["penalties"] for request in requests]).t().contiguous(),
    )


def expected_of(logits, requests):
    expected = logits.clone()
    for row, request in zip(expected, requests, strict=True):
        repetition, presence, frequency = request["penalties"]
        adjustment = Adjustment(
            logit_bias=request["bias"],
            token_ids=[*request["prompt"], *request["output"]],
            num_prompt_tokens=len(request["prompt"]),
            repetition_penalty=repetition,
            presence_penalty=presence,
            frequency_penalty=frequency,
        )
        adjust_reference(row, adjustment)
    return expected


@pytest.fixture(params=["reference", "kernel"])
def adjust(request):
    if request.param == "reference":
        return logit_adjustment_reference
    return kernel_of("logit_adjustment").logit_adjustment


def test_is_what_the_sampler_does_to_each_row(adjust):
    buffers = GuardedBuffers()
    logits = buffers.copy(3 * random(len(REQUESTS), VOCAB_SIZE, seed=0))
    expected = expected_of(logits, REQUESTS)
    adjust(logits, *(buffers.copy(tensor) for tensor in entries(REQUESTS)))
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-6)
    assert (logits == -torch.inf).nonzero().tolist() == [[2, 6]]
    buffers.check()


def test_many_entries_of_rows_with_a_wider_stride(adjust):
    rng = torch.Generator().manual_seed(1)
    requests = [
        {
            "prompt": torch.randint(VOCAB_SIZE, (150,), generator=rng).tolist(),
            "output": torch.randint(VOCAB_SIZE, (100,), generator=rng).tolist(),
            "bias": {},
            "penalties": (1.1 + row / 10, 0.1, 0.2),
        }
        for row in range(5)
    ]
    logits = torch.full((5, VOCAB_SIZE + 20), torch.nan)
    logits[:, :VOCAB_SIZE] = random(5, VOCAB_SIZE, seed=2)
    expected = expected_of(logits[:, :VOCAB_SIZE], requests)
    adjust(logits[:, :VOCAB_SIZE], *entries(requests))
    torch.testing.assert_close(logits[:, :VOCAB_SIZE], expected, rtol=1e-6, atol=1e-6)
    assert logits[:, VOCAB_SIZE:].isnan().all()


def test_a_tiny_penalty_overflows_to_the_largest_number(adjust):
    logits = torch.ones(1, VOCAB_SIZE)
    request = {"prompt": [3], "output": [], "bias": {}, "penalties": (1e-39, 0.0, 0.0)}
    adjust(logits, *entries([request]))
    assert float(logits[0, 3]) == torch.finfo(torch.float32).max


def test_a_nan_stays(adjust):
    logits = torch.full((1, VOCAB_SIZE), torch.nan)
    adjust(logits, *entries([{"prompt": [3], "output": [3], "bias": {4: 1.0}, "penalties": (2.0, 1.0, 1.0)}]))
    assert logits.isnan().all()


def test_nothing_listed_changes_nothing(adjust):
    logits = random(2, 50, seed=3)
    before = logits.clone()
    nothing = torch.zeros(0, dtype=torch.int32)
    adjust(logits, nothing, nothing, torch.zeros(0), nothing.bool(), nothing, *torch.ones(3, 2))
    assert torch.equal(logits, before)


def test_what_does_not_fit_is_refused_with_both_values():
    adjust = kernel_of("logit_adjustment").logit_adjustment
    arguments = list(entries(REQUESTS))
    with pytest.raises(ValueError, match=r"3 rows of logits.*4, 4, 4"):
        adjust(random(3, VOCAB_SIZE, seed=0), *arguments)
    arguments[1] = arguments[1][:5]
    with pytest.raises(ValueError, match=rf"{len(arguments[0])} rows of entries.*5"):
        adjust(random(4, VOCAB_SIZE, seed=0), *arguments)
