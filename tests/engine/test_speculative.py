"""Speculative decoding: the same tokens as without, in fewer steps where text repeats itself."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroshot.engine.sequence import Sequence
from zeroshot.engine.speculative import look_up
from zeroshot.model.native_ops import why_unavailable
from zeroshot.types import SamplingParams

KINDS = [
    {},
    {"temperature": 1.0, "seed": 7},
    {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "seed": 8, "logprobs": 2},
    {"temperature": 0.5, "seed": 9, "frequency_penalty": 1.0, "repetition_penalty": 1.2, "logit_bias": {3: 4.0}},
    {"min_tokens": 6, "stop_token_ids": [5, 6, 7, 8]},
    {"temperature": 0.6, "typical_p": 0.8, "seed": 10},
    {"repetition_penalty": 0.5},
]
"""The last one makes any model repeat itself."""


@pytest.fixture(scope="module")
def small(checkpoint):
    return checkpoint()


@pytest.fixture(scope="module", params=["fp32", "bf16", "int8"])
def dtype(request):
    if request.param == "bf16" and why_unavailable() is not None:
        pytest.skip(f"in PyTorch's bf16 rows differ with their number: {why_unavailable()}")
    return request.param


@pytest.fixture(scope="module")
def plain(small, load_engine, dtype):
    return load_engine(small.folder, kv_cache_tokens=2048, dtype=dtype, speculative_ngram=0)


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
    assert look_up(sequence_of([1, 2, 3, 9, 1, 2, 3, 4, 5, 1, 2, 3]), 7, ngram=2) == (4, 5, 1), "three: as many"
    assert look_up(sequence_of([1, 2, 3, 9, 1, 2, 3, 4, 5, 1, 2, 3]), 2, ngram=2) == (4, 5)
    assert look_up(sequence_of([8, 2, 3, 4, 5, 1, 2, 3]), 7, ngram=2) == (4, 5)
    assert look_up(sequence_of([8, 2, 3, 4, 5, 1, 2, 3]), 7, ngram=3) == (), "two are not enough"
    assert look_up(sequence_of([8, 9, 3, 4, 5, 1, 2, 3]), 7, ngram=1) == (4,)
    assert look_up(sequence_of([7, 7, 7, 7]), 7, ngram=2) == (7,) * 3, "on into the guesses"
    assert look_up(sequence_of([1, 2] * 9), 7, ngram=2) == (1, 2, 1, 2, 1, 2, 1)
    assert look_up(sequence_of([1, 2]), 7, ngram=3) == ()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 5), st.integers(0, 8), st.integers(0, 12))
def test_a_guess_goes_on_as_the_text_did_and_fits(token_ids, ngram, most, left):
    max_tokens = len(token_ids) - 1 + left
    guessed = look_up(sequence_of(token_ids, max_tokens), most, ngram=ngram)
    assert len(guessed) <= min(most, max(0, left - 1))
    text = [*token_ids, *guessed]

    def stood_before(start, end):
        return any(text[i : i + end - start] == text[start:end] for i in range(max(0, start)))

    num_tokens = len(token_ids)
    if guessed:
        assert stood_before(num_tokens - max(ngram, len(guessed)), len(text))
    elif most and left > 1:
        assert not stood_before(num_tokens - ngram, num_tokens)


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
    assert num_steps <= 20, "eight a step, once it is known what comes"
    num_accepted = after.accepted_tokens_total - before.accepted_tokens_total
    assert num_accepted == 100 - num_steps, "a step draws one token and one more after each right guess"
    assert num_accepted <= after.guessed_tokens_total - before.guessed_tokens_total <= num_accepted + 7


def test_guesses_behind_the_end_of_a_text_do_not_count_as_accepted(speculative, run, request_of):
    """After 8, 8, 8 three 7s are guessed, all of which would come; but the first one ends the text."""
    prompt = [8, 8, 8, 8, 7, 7, 7, 7, 5]
    params = {"logit_bias": {7: 1000.0, 8: 900.0}, "stop_token_ids": (7,), "min_tokens": 3, "max_tokens": 20}
    before = speculative.stats().accepted_tokens_total
    assert run(speculative, request_of("a", prompt, **params))["a", 0].token_ids == [8, 8, 8, 7]
    assert speculative.stats().accepted_tokens_total - before == 1


@settings(max_examples=15)
@given(
    prompts=st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=20), min_size=2, max_size=6),
    kinds=st.lists(st.sampled_from(KINDS), min_size=6, max_size=6),
)
def test_so_they_are_with_several_streams(plain, speculative, run, request_of, prompts, kinds):
    requests = [
        request_of(str(i), prompt, max_tokens=10 + 8 * i, **kind)
        for i, (prompt, kind) in enumerate(zip(prompts, kinds, strict=False))
    ]
    expected, found = run(plain, *requests), run(speculative, *requests)
    assert found.keys() == expected.keys()
    for key in expected:
        assert_same(found[key], expected[key], plain)


def test_the_cpus_kernels_guess_unless_told_not_to(small, load_engine, plain, run, request_of):
    engine = load_engine(small.folder, kv_cache_tokens=2048, dtype="fp32")
    requests = [request_of(str(i), [1, 2, 3], max_tokens=50, logit_bias={7: 1000.0}) for i in range(4)]
    assert all(result.token_ids == [7] * 50 for result in run(engine, *requests).values())
    stats = engine.stats()
    if engine.model.layer_loop is None:
        assert stats.guessed_tokens_total == 0
    else:
        assert stats.steps_total < 30, "for four streams one token each is guessed"
        assert stats.accepted_tokens_total > 80
    run(plain, *requests)
    assert plain.stats().guessed_tokens_total == 0
