"""Speculative decoding by a draft model: the same tokens as without, in fewer steps the more alike the models are."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.test_speculative import KINDS, assert_same
from zeroshot.engine.draft import Draft
from zeroshot.engine.loader import load_engine as load
from zeroshot.engine.loader import load_model
from zeroshot.engine.model_runner import ModelRunner
from zeroshot.engine.sequence import Sequence
from zeroshot.errors import SettingsError, UnknownModel
from zeroshot.settings import EngineSettings
from zeroshot.types import SamplingParams

NUM_TOKENS = 4


@pytest.fixture(scope="module")
def small(checkpoint):
    return checkpoint()


@pytest.fixture(scope="module", params=["fp32", "int8"])
def dtype(request):
    return request.param


@pytest.fixture(scope="module")
def plain(small, load_engine, dtype):
    return load_engine(small.folder, kv_cache_tokens=2048, dtype=dtype, speculative_ngram=0)


@pytest.fixture(scope="module")
def drafts(small, checkpoint):
    """The model itself; another with its tokens, fewer layers and positions."""
    return {"itself": small, "another": checkpoint(seed=5, n_layer=1, n_head=2, n_positions=64)}


@pytest.fixture(scope="module")
def engines(small, load_engine, dtype, drafts):
    options = {"kv_cache_tokens": 2048, "dtype": dtype}
    return {
        name: load_engine(small.folder, speculative_model=str(draft.folder), **options)
        for name, draft in drafts.items()
    }


def draft_of(folder):
    model = load_model(EngineSettings(model_folder=folder, device="cpu", dtype="fp32"))
    block_size = model.backend.kv_block_size
    return Draft(ModelRunner(model, model.allocate_kv_cache(128 // block_size, block_size)), NUM_TOKENS)


def sequence_of(token_ids, **params):
    return Sequence("a", 0, list(token_ids), len(token_ids), SamplingParams(**{"max_tokens": 50, "seed": 3} | params))


def num_steps(engine, run, request):
    before = engine.stats().steps_total
    result = run(engine, request)["a", 0]
    return result, engine.stats().steps_total - before


@pytest.mark.parametrize("name", ["itself", "another"])
@settings(max_examples=25)
@given(
    prompt=st.lists(st.integers(0, 209), min_size=1, max_size=80),
    kind=st.sampled_from(KINDS),
    max_tokens=st.integers(1, 48),
)
def test_the_outputs_are_those_without(plain, engines, run, request_of, name, prompt, kind, max_tokens):
    request = request_of("a", prompt, max_tokens=max_tokens, **kind)
    assert_same(run(engines[name], request)["a", 0], run(plain, request)["a", 0], plain)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_draft_that_is_the_model_is_always_right(engines, run, request_of, temperature):
    """With a temperature too: both draw with the same random numbers."""
    request = request_of("a", [1, 2, 3], max_tokens=101, temperature=temperature, seed=1, ignore_eos=True)
    result, steps = num_steps(engines["itself"], run, request)
    assert len(result.token_ids) == 101
    assert steps <= 1 + 100 / (NUM_TOKENS + 1) + 2, "five tokens a step after the prompt's"


def test_a_draft_that_is_another_model_is_sometimes_wrong(engines, run, request_of):
    request = request_of("a", [1, 2, 3], max_tokens=60, ignore_eos=True)
    _, steps = num_steps(engines["another"], run, request)
    assert steps > 1 + 60 / (NUM_TOKENS + 1) + 2


def test_greedy_guesses_are_what_hugging_face_generates(drafts):
    for draft in drafts.values():
        prompt = torch.tensor([[5, 9, 100, 42]])
        expected = draft.model.generate(prompt, max_new_tokens=NUM_TOKENS, do_sample=False)[0, 4:].tolist()
        sequence = sequence_of(prompt[0].tolist(), temperature=0.0, ignore_eos=True)
        assert list(draft_of(draft.folder)(sequence, NUM_TOKENS)) == expected


@settings(max_examples=20)
@given(
    texts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=64), min_size=1, max_size=6),
    temperature=st.sampled_from([0.0, 1.0]),
)
def test_what_it_has_read_before_makes_no_difference(drafts, texts, temperature):
    used = draft_of(drafts["another"].folder)
    for text in texts:
        fresh, sequence = draft_of(drafts["another"].folder), sequence_of(text, temperature=temperature)
        assert used(sequence, NUM_TOKENS) == fresh(sequence, NUM_TOKENS)
        assert sequence.token_ids == text


def test_what_it_has_read_of_one_key_is_read_again_for_another(drafts, monkeypatch):
    draft = draft_of(drafts["another"].folder)
    num_read, forward = [], draft._runner.model.forward

    def count(token_ids, *rest):
        num_read.append(len(token_ids))
        return forward(token_ids, *rest)

    monkeypatch.setattr(draft._runner.model, "forward", count)
    for salt, expected in ((b"a", 30), (b"a", 1), (b"b", 30), (b"a", 30)):
        num_read.clear()
        sequence = sequence_of([1, 2, 3] * 10)
        sequence.cache_salt = salt
        draft(sequence, NUM_TOKENS)
        assert num_read[0] == expected


def test_it_guesses_no_further_than_its_positions_and_the_request_go(drafts):
    draft = draft_of(drafts["another"].folder)
    assert len(draft(sequence_of([1] * 61, ignore_eos=True), NUM_TOKENS)) == NUM_TOKENS
    assert len(draft(sequence_of([1] * 63, ignore_eos=True), NUM_TOKENS)) == 2
    assert len(draft(sequence_of([1] * 64, ignore_eos=True), NUM_TOKENS)) == 1
    assert draft(sequence_of([1] * 65, ignore_eos=True), NUM_TOKENS) == ()
    assert len(draft(sequence_of([1, 2], ignore_eos=True, max_tokens=3), NUM_TOKENS)) == 2
    assert draft(sequence_of([1, 2], max_tokens=1), NUM_TOKENS) == ()
    assert len(draft(sequence_of([1, 2], ignore_eos=True), 3)) == 3


def test_it_stops_where_the_request_would(drafts):
    draft = draft_of(drafts["itself"].folder)
    first, *_ = draft(sequence_of([1, 2, 3]), NUM_TOKENS)
    assert draft(sequence_of([1, 2, 3], stop_token_ids=(first,)), NUM_TOKENS) == (first,)


def test_two_streams_are_decoded_one_by_one_until_one_is_left(plain, engines, run, request_of):
    requests = [request_of(str(i), [i, 2, 3], max_tokens=20 + 40 * i) for i in range(2)]
    expected = run(plain, *requests)
    before = engines["itself"].stats().steps_total
    found = run(engines["itself"], *requests)
    assert {k: r.token_ids for k, r in found.items()} == {k: r.token_ids for k, r in expected.items()}
    assert 20 + 40 / (NUM_TOKENS + 1) <= engines["itself"].stats().steps_total - before < 40


def test_an_aborted_stream_leaves_nothing_behind(plain, engines, run, request_of):
    engine = engines["itself"]
    engine.add_request(request_of("gone", [7, 8, 9], max_tokens=100))
    for _ in range(4):
        engine.step()
    engine.abort("gone")
    request = request_of("a", [7, 8, 9, 10], max_tokens=30)
    assert run(engine, request)["a", 0].token_ids == run(plain, request)["a", 0].token_ids
    assert engine.stats().num_free_kv_blocks == engine.stats().num_kv_blocks


def test_nan_in_the_draft_is_no_guess(drafts):
    draft = draft_of(drafts["another"].folder)
    ln_f = draft._runner.model.ln_f
    ln_f.weight = ln_f.weight * torch.nan
    assert draft(sequence_of([1, 2, 3]), NUM_TOKENS) == ()


def test_a_draft_that_fails_is_left_alone(small, drafts, load_engine, run, request_of, monkeypatch, caplog):
    plain = load_engine(small.folder, kv_cache_tokens=2048)
    engine = load_engine(small.folder, kv_cache_tokens=2048, speculative_model=str(drafts["another"].folder))
    calls = []

    def fail(*_):
        calls.append(1)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine.scheduler.guessing.guess._runner.model, "forward", fail)
    request = request_of("a", [1, 2, 3], max_tokens=20)
    with caplog.at_level(logging.ERROR):
        assert run(engine, request)["a", 0].token_ids == run(plain, request)["a", 0].token_ids
    assert len(calls) == 1
    assert "the draft model failed" in caplog.text


def test_a_draft_with_other_tokens_is_refused_by_name(small, checkpoint):
    for options, name in (({"vocab_size": 100}, "vocab_size"), ({"eos_token_id": 7}, "eos_token_id")):
        draft = str(checkpoint(**options).folder)
        with pytest.raises(SettingsError, match=f"speculative_model: its {name}"):
            load(EngineSettings(model_folder=small.folder, device="cpu", speculative_model=draft))


def test_a_draft_that_is_not_there_is_refused_by_name(small, tmp_path):
    settings = EngineSettings(
        model_folder=small.folder, device="cpu", speculative_model="no such model", weights_dir=tmp_path
    )
    with pytest.raises(UnknownModel, match="no such model"):
        load(settings)


def test_only_one_may_guess():
    with pytest.raises(ValueError, match="exclude each other"):
        EngineSettings(speculative_ngram=2, speculative_model="demo")
