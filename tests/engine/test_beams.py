"""Beam search: Hugging Face's `generate(num_beams=...)` token for token, and every block comes back."""

import json
import shutil
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroshot.errors import InvalidRequest
from zeroshot.types import BeamParams

EOS = 210


@pytest.fixture(scope="module")
def small(checkpoint):
    return checkpoint(initializer_range=0.2)  # flatter than elsewhere: beams compete, and texts end early


@pytest.fixture(scope="module")
def engine(small, load_engine):
    return load_engine(small.folder, kv_cache_tokens=4096, kv_block_size=4)


Texts = list[tuple[list[int], float]]


def hugging_face(model: Any, prompt: list[int], n: int, max_tokens: int, **options: Any) -> Texts:
    with torch.inference_mode():
        found = model.generate(
            torch.tensor([prompt]),
            max_new_tokens=max_tokens,
            do_sample=False,
            num_return_sequences=n,
            return_dict_in_generate=True,
            output_scores=True,
            **options,
        )
    texts = []
    for row, score in zip(found.sequences.tolist(), found.sequences_scores.tolist(), strict=True):
        generated = row[len(prompt) :]
        if options.get("eos_token_id", EOS) == EOS and EOS in generated:
            generated = generated[: generated.index(EOS) + 1]  # then comes padding
        texts.append((generated, score))
    return texts


def up_to_an_end(token_ids: list[int], ends: list[int]) -> list[int]:
    return token_ids[: next((i for i, token_id in enumerate(token_ids) if token_id in ends), len(token_ids)) + 1]


def ours(run: Any, engine: Any, request: Any) -> Texts:
    results = run(engine, request)
    assert engine.block_manager.num_free_blocks == engine.block_manager.num_blocks
    assert not engine.has_work
    return [
        (results[request.request_id, i].token_ids, results[request.request_id, i].beam_score) for i in range(request.n)
    ]


def assert_same(found: Texts, expected: Texts) -> None:
    assert [token_ids for token_ids, _ in found] == [token_ids for token_ids, _ in expected]
    assert [score for _, score in found] == pytest.approx(
        [score for _, score in expected], abs=1e-4, rel=1e-5
    )  # theirs are sums in fp32


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    length=st.integers(1, 40),
    num_beams=st.integers(2, 7),
    max_tokens=st.integers(1, 24),
    length_penalty=st.sampled_from([1.0, 0.0, 2.0, -1.0, 0.6]),
    early_stopping=st.sampled_from([False, True, "never"]),
    data=st.data(),
)
def test_the_same_texts_as_hugging_face(
    small,
    engine,
    run,
    request_of,
    prompts_of,
    seed,
    length,
    num_beams,
    max_tokens,
    length_penalty,
    early_stopping,
    data,
):
    n = data.draw(st.integers(1, num_beams))
    (prompt,) = prompts_of(seed, [length])
    beams = BeamParams(num_beams=num_beams, length_penalty=length_penalty, early_stopping=early_stopping)
    request = request_of("a", prompt, max_tokens=max_tokens, n=n, beams=beams)
    options = {"num_beams": num_beams, "length_penalty": length_penalty, "early_stopping": early_stopping}
    assert_same(ours(run, engine, request), hugging_face(small.model, prompt, n, max_tokens, **options))


@pytest.mark.parametrize(
    ("params", "options"),
    [
        ({"repetition_penalty": 1.3}, {"repetition_penalty": 1.3}),
        ({"min_tokens": 6}, {"min_new_tokens": 6}),
        ({"stop_token_ids": (3, 7, 9)}, {"eos_token_id": [EOS, 3, 7, 9]}),
        ({"logit_bias": {5: 3.0, EOS: 2.5}}, {"sequence_bias": {(5,): 3.0, (EOS,): 2.5}}),
    ],
    ids=str,
)
def test_with_other_settings(small, engine, run, request_of, prompts_of, params, options):
    for index, prompt in enumerate(prompts_of(7, [3, 16, 29])):
        request = request_of(str(index), prompt, max_tokens=20, n=3, beams=BeamParams(num_beams=4), **params)
        found = ours(run, engine, request)
        expected = hugging_face(small.model, prompt, 3, 20, num_beams=4, **options)
        ends = options.get("eos_token_id", [EOS])
        assert_same(found, [(up_to_an_end(token_ids, ends), score) for token_ids, score in expected])


def test_any_of_several_ends_of_text_ends_a_beam(small, load_engine, run, request_of, prompts_of, tmp_path):
    prompts = prompts_of(7, [3, 16, 29])
    ends = [EOS, *{hugging_face(small.model, prompt, 1, 20, num_beams=4)[0][0][-2] for prompt in prompts}]
    shutil.copytree(small.folder, tmp_path / "several")
    config = json.loads((small.folder / "config.json").read_text())
    (tmp_path / "several" / "config.json").write_text(json.dumps(config | {"eos_token_id": ends}))
    engine = load_engine(tmp_path / "several", kv_cache_tokens=4096, kv_block_size=4)
    for index, prompt in enumerate(prompts):
        found = ours(run, engine, request_of(str(index), prompt, max_tokens=20, n=3, beams=BeamParams(num_beams=4)))
        expected = hugging_face(small.model, prompt, 3, 20, num_beams=4, eos_token_id=ends)
        assert_same(found, [(up_to_an_end(token_ids, ends), score) for token_ids, score in expected])


def test_searches_side_by_side_with_others(small, load_engine, run, request_of, prompts_of):
    """Chunked prompts, a cache that is nearly full, more beams than places: each gets what it gets alone."""
    engine = load_engine(small.folder, kv_cache_tokens=512, kv_block_size=4, max_num_seqs=8, max_num_batched_tokens=16)
    prompts = prompts_of(9, [30, 5, 17, 30, 2, 40])
    beams = [BeamParams(num_beams=4), None, BeamParams(num_beams=3), None, BeamParams(num_beams=5), None]
    requests = [
        request_of(str(i), prompt, max_tokens=12, temperature=0.0 if b else 1.0, seed=i, n=2, beams=b)
        for i, (prompt, b) in enumerate(zip(prompts, beams, strict=True))
    ]
    together = run(engine, *requests)
    for request in requests:
        alone = run(engine, request)
        assert {key: value.token_ids for key, value in alone.items()} == {key: together[key].token_ids for key in alone}
    assert engine.block_manager.num_free_blocks == engine.block_manager.num_blocks


def test_the_prompt_of_a_search_is_scored_as_any_other(engine, run, request_of, prompts_of):
    (prompt,) = prompts_of(12, [21])
    search = request_of("search", prompt, max_tokens=4, n=2, prompt_logprobs=2, beams=BeamParams(num_beams=3))
    results = run(engine, search) | run(engine, request_of("plain", prompt, max_tokens=0, prompt_logprobs=2))
    scores = results["search", 0].prompt_logprobs
    assert [score.token_id for score in scores] == prompt[1:]
    assert scores == results["plain", 0].prompt_logprobs


@pytest.mark.parametrize("num_steps", range(8))
def test_an_abort_at_any_step_frees_everything(engine, request_of, prompts_of, num_steps):
    (prompt,) = prompts_of(11, [21])
    engine.add_request(request_of("a", prompt, max_tokens=20, beams=BeamParams(num_beams=5), ignore_eos=True))
    for _ in range(num_steps):
        engine.step()
    engine.abort("a")
    assert not engine.has_work
    assert engine.block_manager.num_free_blocks == engine.block_manager.num_blocks


def test_what_can_never_run_is_refused(engine, request_of):
    for num_beams, n, max_tokens, field in ((65, 1, 4, "num_beams"), (2, 3, 4, "num_beams"), (2, 1, 0, "max_tokens")):
        with pytest.raises(InvalidRequest) as raised:
            engine.add_request(request_of("a", [1], max_tokens=max_tokens, n=n, beams=BeamParams(num_beams=num_beams)))
        assert raised.value.field == field
