"""Speculative decoding: the same tokens as without, in fewer steps where text repeats itself."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroshot.engine.sequence import Sequence
from zeroshot.engine.speculative import MAX_GUESSED, look_up
from zeroshot.types import SamplingParams

KINDS = [
    {},
    {"temperature": 1.0, "seed": 7},
    {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "seed": 8, "logprobs": 2},
    {"temperature": 0.5, "seed": 9, "frequency_penalty": 1.0, "repetition_penalty": 1.2, "logit_bias": {3: 4.0}},
    {"min_tokens": 6, "stop_token_ids": [5, 6, 7, 8]},
    {"repetition_penalty": 0.5},
]
"""The last one makes any model repeat itself."""


@pytest.fixture(scope="module")
def small(checkpoint):
    return checkpoint()


@pytest.fixture(scope="module", params=["fp32", "int8"])
def dtype(request):
    return request.param


@pytest.fixture(scope="module")
def plain(small, load_engine, dtype):
    return load_engine(small.folder, kv_cache_tokens=2048, dtype=dtype)


@pytest.fixture(scope="module", params=[1, 3])
def speculative(small, load_engine, dtype, request):
    return load_engine(small.folder, kv_cache_tokens=2048, dtype=dtype, speculative_ngram=request.param)


def sequence_of(token_ids, max_tokens=50):
    return Sequence("a", 0, list(token_ids), 1, SamplingParams(max_tokens=max_tokens))


def assert_same(found, expected, engine):
    """To the last bit where the C++ kernels run: in other products a row may depend on how many there are."""
    tolerance = 0.0 if engine.model.layer_loop is not None else 1e-4
    assert found.token_ids == expected.token_ids
    assert (found.finish_reason, found.stop_token_id) == (expected.finish_reason, expected.stop_token_id)
    for a, b in zip(found.logprobs, expected.logprobs, strict=True):
        assert (a.token_id, a.rank) == (b.token_id, b.rank)
        assert abs(a.logprob - b.logprob) <= tolerance


def test_what_is_guessed_followed_the_newest_tokens_the_last_time():
    assert look_up(sequence_of([1, 2, 3, 9, 1, 2, 3, 4, 5, 1, 2, 3]), 3) == (4, 5, 1, 2, 3, 4)
    assert look_up(sequence_of([8, 2, 3, 4, 5, 1, 2, 3]), 3) == (4, 5, 1, 2, 3, 4), "two of them will do"
    assert look_up(sequence_of([8, 9, 3, 4, 5, 1, 2, 3]), 3) == (), "one is not enough"
    assert look_up(sequence_of([8, 9, 3, 4, 5, 1, 2, 3]), 1) == (4, 5, 1, 2, 3, 4), "unless it was asked for"
    assert look_up(sequence_of([7, 7, 7, 7]), 2) == (7,) * 6
    assert look_up(sequence_of([1, 2]), 3) == ()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 5), st.integers(0, 12))
def test_a_guess_goes_on_as_the_text_did_and_fits(token_ids, ngram, left):
    max_tokens = len(token_ids) - 1 + left
    guessed = look_up(sequence_of(token_ids, max_tokens), ngram)
    assert len(guessed) <= min(MAX_GUESSED, max(0, left - 1))
    if guessed:
        size, text = min(ngram, 2), [*token_ids, *guessed]
        pieces = [text[i : i + size + len(guessed)] for i in range(len(token_ids) - size)]
        assert text[len(token_ids) - size :] in pieces


@settings(max_examples=25)
@given(
    prompt=st.lists(st.integers(0, 12), min_size=1, max_size=40),
    kind=st.sampled_from(KINDS),
    max_tokens=st.integers(1, 40),
)
def test_the_outputs_are_those_without(plain, speculative, run, request_of, prompt, kind, max_tokens):
    request = request_of("a", prompt, max_tokens=max_tokens, **kind)
    assert_same(run(speculative, request)["a", 0], run(plain, request)["a", 0], plain)


def test_text_that_repeats_itself_takes_fewer_steps(speculative, run, request_of):
    request = request_of("a", [1, 2, 3], max_tokens=100, logit_bias={7: 1000.0})
    before = speculative.stats()
    assert len(run(speculative, request)["a", 0].token_ids) == 100
    after = speculative.stats()
    num_steps = after.steps_total - before.steps_total
    assert num_steps <= 20, "seven a step, once it is known what comes"
    num_accepted = after.accepted_tokens_total - before.accepted_tokens_total
    assert num_accepted == 100 - num_steps, "a step draws one token and one more after each right guess"
    assert num_accepted <= after.guessed_tokens_total - before.guessed_tokens_total <= num_accepted + 6


def test_two_streams_are_decoded_one_by_one_until_one_is_left(plain, speculative, run, request_of):
    requests = [request_of(str(i), [i, 2, 3], max_tokens=20 + 40 * i, repetition_penalty=0.3) for i in range(2)]
    expected = run(plain, *requests)
    assert {k: r.token_ids for k, r in run(speculative, *requests).items()} == {
        k: r.token_ids for k, r in expected.items()
    }
