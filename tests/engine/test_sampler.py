"""What the sampler does by the C++ kernels for all rows at once is what it does without them, row by row."""

from dataclasses import replace

import pytest
import torch

from zeroshot.engine.beams import BeamSearch
from zeroshot.engine.sampler import sample, score_prompt
from zeroshot.engine.sequence import Sequence
from zeroshot.model.native_ops import native_backend, why_unavailable
from zeroshot.types import BeamParams, SamplingParams

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))

ASKED = [
    {"temperature": 1.0},
    {"temperature": 0.0},
    {"temperature": 0.7, "logprobs": 3},
    {"temperature": 0.7, "top_k": 5},
    {"temperature": 0.7, "top_p": 0.5, "logprobs": 0},
    {"temperature": 0.7, "min_p": 0.1},
    {"temperature": 2.0, "top_k": 50, "top_p": 0.9, "min_p": 0.01},
    {"temperature": 0.7, "typical_p": 0.4, "logprobs": 2},
    {"temperature": 0.9, "top_k": 90, "typical_p": 0.7, "repetition_penalty": 1.3, "min_tokens": 9},
    {"temperature": 0.0, "typical_p": 0.4},
    {"temperature": 0.9, "repetition_penalty": 1.3},
    {"temperature": 0.0, "repetition_penalty": 1e-38, "logprobs": 2},
    {"temperature": 0.9, "presence_penalty": 0.5, "frequency_penalty": 2.0, "top_p": 0.9},
    {"temperature": 0.9, "logit_bias": {7: 100.0, 3: -100.0}, "logprobs": 20},
    {"temperature": 0.9, "min_tokens": 9},
    {"temperature": 1e-45},
    {"temperature": 1.0},
]


def sequences_of(asked):
    return [Sequence(str(i), i, [1, 2, 3, 2, 2], 3, SamplingParams(seed=i, **p)) for i, p in enumerate(asked)]


def kernels():
    return native_backend("fp32").sampling_kernels


def assert_same(found, expected):
    assert (found is None) == (expected is None)
    if expected is not None:
        assert (found.token_id, found.rank) == (expected.token_id, expected.rank)
        assert [token_id for token_id, _ in found.top] == [token_id for token_id, _ in expected.top]
        assert [found.logprob, *(value for _, value in found.top)] == pytest.approx(
            [expected.logprob, *(value for _, value in expected.top)], rel=1e-6, abs=1e-6
        )


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_every_kind_are_sampled_together(seed):
    sequences = sequences_of(ASKED)
    logits = torch.randn(len(ASKED), 300, generator=torch.Generator().manual_seed(seed))
    logits[-1, 7] = torch.nan
    before = logits.clone()
    found, expected = sample(logits, sequences, 50256, kernels()), sample(logits, sequences, 50256)
    assert [token.token_id for token in found] == [token.token_id for token in expected]
    assert found[-1].token_id is None
    for one, other in zip(found, expected, strict=True):
        assert_same(one.logprob, other.logprob)
    assert torch.equal(logits.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize("params", ASKED, ids=str)
def test_a_row_alone_gets_what_it_gets_among_others(params):
    logits = torch.randn(3, 300, generator=torch.Generator().manual_seed(9))
    sequences = sequences_of([{"temperature": 1.0}, params, {"temperature": 0.5, "top_k": 3}])
    together = sample(logits, sequences, 50256, kernels())
    assert sample(logits[1:2], sequences[1:2], 50256, kernels()) == together[1:2]


@pytest.mark.parametrize("params", [{"temperature": 2}, {"min_p": 1}, {"top_p": 1, "top_k": 9}], ids=str)
def test_whole_numbers_are_as_good_as_others(params):
    """As a caller in Python may write them: what comes in by HTTP has been made floats."""
    logits = torch.randn(1, 300, generator=torch.Generator().manual_seed(4)).expand(20, -1).contiguous()
    found = sample(logits, sequences_of([params] * 20), 50256, kernels())
    floats = {name: value if name == "top_k" else float(value) for name, value in params.items()}
    assert found == sample(logits, sequences_of([floats] * 20), 50256, kernels())


def test_rows_that_ask_for_no_log_probabilities_are_not_scored():
    num_scored = []

    def logprobs(logits, *arguments):
        num_scored.append(len(logits))
        return used.logprobs(logits, *arguments)

    used = kernels()
    sequences = sequences_of([{}, {"logprobs": 2}, {}, {"logprobs": 0}, {"logprobs": 5}])
    logits = torch.randn(5, 300)
    logits[4, 3] = torch.nan
    found = sample(logits, sequences, 50256, replace(used, logprobs=logprobs))
    assert num_scored == [2]
    assert [None if token.logprob is None else len(token.logprob.top) for token in found] == [None, 2, None, 0, None]


def test_a_row_that_may_get_no_token_gets_none():
    sequences = sequences_of([{"temperature": 1.0}, {"temperature": 1.0, "logprobs": 1, "min_tokens": 5}])
    token = sample(torch.randn(2, 1), sequences, 0, kernels())[1]
    assert token.token_id is None
    assert token.logprob is None


@pytest.mark.parametrize(
    "params", [{}, {"repetition_penalty": 1.5}, {"min_tokens": 9, "stop_token_ids": (7,)}], ids=str
)
@pytest.mark.parametrize("num_others", [0, 2])
def test_beams_get_the_same_candidates(params, num_others):
    """Of searches of different widths, alone and among sequences that are sampled; none where a row is not finite."""
    sequences = sequences_of([params] * 4 + [{"temperature": 1.0, "top_p": 0.8}] * num_others)
    for beam, num_beams in zip(sequences, (3, 3, 5, 200), strict=False):
        beams = BeamParams(num_beams=num_beams)
        beam.beams = BeamSearch(beams, num_returned=1, max_tokens=5, stop_token_ids=frozenset())
    order = torch.randperm(len(sequences), generator=torch.Generator().manual_seed(3)).tolist()
    logits = torch.randn(len(sequences), 300, generator=torch.Generator().manual_seed(2))
    logits[order.index(1), 5] = torch.nan
    sequences = [sequences[i] for i in order]
    found, expected = sample(logits, sequences, 50256, kernels()), sample(logits, sequences, 50256)
    assert [token.token_id for token in found] == [token.token_id for token in expected]
    assert found[order.index(1)].token_id is None
    counts = {0: 6, 2: 10, 3: 300}
    for place, which in enumerate(order):
        if which not in counts:
            assert found[place].candidates is None
            continue
        ids, logprobs = zip(*found[place].candidates, strict=True)
        expected_ids, expected_logprobs = zip(*expected[place].candidates, strict=True)
        assert len(ids) == counts[which]
        if not params.get("min_tokens") or which != 3:  # what is forbidden ties at the end of all 300
            assert ids == expected_ids
        assert logprobs == pytest.approx(expected_logprobs, rel=1e-6, abs=1e-6)


def test_a_beam_alone_gets_what_it_gets_beside_one_with_a_penalty():
    sequences = sequences_of([{}] * 20 + [{"repetition_penalty": 1.5}])
    for beam in sequences:
        beams = BeamParams(num_beams=20)
        beam.beams = BeamSearch(beams, num_returned=1, max_tokens=5, stop_token_ids=frozenset())
    logits = torch.randn(21, 50257, generator=torch.Generator().manual_seed(6))
    together = sample(logits, sequences, 50256, kernels())
    assert sample(logits[:20], sequences[:20], 50256, kernels()) == together[:20]


@pytest.mark.parametrize("num_top", [0, 4])
def test_a_prompt_gets_the_same_scores(num_top):
    logits = torch.randn(9, 300)
    logits[4, 0] = torch.inf
    targets = list(range(9))
    found, expected = score_prompt(logits, targets, num_top, kernels()), score_prompt(logits, targets, num_top)
    assert found[4] is None
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
