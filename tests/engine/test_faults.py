"""One bad request: it ends with an error, its neighbours get what they would have got alone, no block is lost."""

import logging
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from zeroshot.model.native_ops import why_unavailable
from zeroshot.types import BeamParams
from zeroshot_kernels.cpu import attention

POISONED_TOKEN = 77
POISONED_POSITION = 40
BLOCK_SIZE = 16


@pytest.fixture(scope="module")
def small(checkpoint):
    return checkpoint(tie_word_embeddings=False)


@pytest.fixture(scope="module")
def poisoned(small, load_engine, tmp_path_factory):
    """poisoned(tensor, row, value, **EngineSettings): an engine whose checkpoint has that value in that row."""

    def make(tensor, row, value=float("nan"), **options):
        folder = shutil.copytree(small.folder, tmp_path_factory.mktemp("poisoned") / "model")
        tensors = load_file(folder / "model.safetensors")
        tensors[tensor if tensor in tensors else f"transformer.{tensor}"][row, 5] = value
        save_file(tensors, folder / "model.safetensors")
        return load_engine(folder, **options)

    return make


@pytest.fixture
def clean(small, load_engine):
    return load_engine(small.folder)


def tokens_of(results):
    return {key: result.token_ids for key, result in results.items()}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("budget", [16, 512])
def test_not_finite_in_the_prompt(poisoned, clean, prompts_of, run, request_of, value, budget):
    """Requests beyond the poisoned position end; those below it never notice."""
    engine = poisoned("wpe.weight", POISONED_POSITION, value, max_num_batched_tokens=budget, max_num_seqs=8)
    prompts = prompts_of(1, [41, 10, 64, 25, 100, 3])
    requests = [
        request_of(str(i), prompt, max_tokens=8, temperature=float(i % 2), ignore_eos=True)
        for i, prompt in enumerate(prompts)
    ]
    results = run(engine, *requests)
    expected = run(clean, *requests)
    for i, prompt in enumerate(prompts):
        result = results[str(i), 0]
        if len(prompt) > POISONED_POSITION:
            assert (result.finish_reason, result.error_code, result.token_ids) == ("error", "nan_logits", [])
        else:
            assert result.token_ids == expected[str(i), 0].token_ids
            assert result.error_code is None


def test_not_finite_while_decoding(poisoned, clean, prompts_of, run, request_of):
    engine = poisoned("wpe.weight", POISONED_POSITION)
    prompts = prompts_of(2, [36, 20, 39, 8])
    requests = [request_of(str(i), prompt, max_tokens=16, ignore_eos=True) for i, prompt in enumerate(prompts)]
    results, expected = run(engine, *requests), run(clean, *requests)
    for i, prompt in enumerate(prompts):
        result, wanted = results[str(i), 0], expected[str(i), 0].token_ids
        if len(prompt) + 16 > POISONED_POSITION + 1:
            assert (result.finish_reason, result.error_code) == ("error", "nan_logits")
            assert result.token_ids == wanted[: POISONED_POSITION - len(prompt) + 1]
        else:
            assert (result.finish_reason, result.token_ids) == ("length", wanted)


@pytest.mark.parametrize(("kv_dtype", "is_said"), [("fp32", False), ("fp16", True)])
def test_the_log_says_that_keys_and_values_may_be_too_large(
    poisoned, prompts_of, run, request_of, caplog, kv_dtype, is_said
):
    """A checkpoint that works in fp32 can have keys beyond fp16's range, and nothing else would tell its owner."""
    if is_said and (why_unavailable() is not None or not attention.converts_half()):
        pytest.skip("keys and values in fp16 take the C++ kernels")
    engine = poisoned("wpe.weight", POISONED_POSITION, kv_dtype=kv_dtype)
    (prompt,) = prompts_of(2, [POISONED_POSITION + 1])
    with caplog.at_level(logging.WARNING):
        assert run(engine, request_of("bad", prompt, max_tokens=1))["bad", 0].error_code == "nan_logits"
    assert ("--kv-dtype" in caplog.text) == is_said


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_neighbour_whose_block_table_is_padded_with_the_poisoned_block(
    poisoned, clean, prompts_of, run, request_of, value
):
    """The first request owns block 0, which pads the others' tables; it turns into NaN while all of them decode."""
    engine = poisoned("wte.weight", POISONED_TOKEN, value)
    short, long = prompts_of(3, [5, 50], vocab_size=70)
    never = {POISONED_TOKEN: -100.0}
    requests = [
        request_of("bad", [1, 2, 3], max_tokens=10, logit_bias={POISONED_TOKEN: 1000.0}, ignore_eos=True),
        request_of("short", short, max_tokens=10, ignore_eos=True, logit_bias=never),
        request_of("long", long, max_tokens=10, ignore_eos=True, logit_bias=never),
    ]
    results, expected = run(engine, *requests), run(clean, *requests)
    assert (results["bad", 0].finish_reason, results["bad", 0].error_code) == ("error", "nan_logits")
    assert results["bad", 0].token_ids == [POISONED_TOKEN]
    for name in ("short", "long"):
        assert results[name, 0].error_code is None, name
        assert results[name, 0].token_ids == expected[name, 0].token_ids


def test_the_blocks_of_a_poisoned_request_are_usable_again(poisoned, clean, prompts_of, run, request_of):
    """A cache of a single context, so that every block is reused, in the middle of which NaN has been."""
    engine = poisoned("wpe.weight", POISONED_POSITION, kv_cache_tokens=128)
    bad, good, longer = prompts_of(4, [120, 30, 20])
    for _ in range(3):
        assert run(engine, request_of("bad", bad, max_tokens=1))["bad", 0].error_code == "nan_logits"
        requests = [
            request_of("good", good, max_tokens=10, ignore_eos=True),
            request_of("longer", longer, max_tokens=20, ignore_eos=True, temperature=1.0, seed=3),
        ]
        assert tokens_of(run(engine, *requests)) == tokens_of(run(clean, *requests))


def test_a_poisoned_prefix_is_not_cached(poisoned, clean, prompts_of, run, request_of):
    """Whatever comes after, the same request fails again in the same way, and the good part of it works."""
    engine = poisoned("wpe.weight", POISONED_POSITION, max_num_batched_tokens=16, max_num_seqs=4)
    (prompt,) = prompts_of(5, [60])
    for _ in range(2):
        assert run(engine, request_of("bad", prompt, n=3, max_tokens=4))["bad", 2].error_code == "nan_logits"
        request = request_of("good", prompt[:39], max_tokens=1)
        assert run(engine, request)["good", 0].token_ids == run(clean, request)["good", 0].token_ids


def test_prompt_scores_of_a_poisoned_prompt(poisoned, clean, prompts_of, run, request_of):
    engine = poisoned("wpe.weight", POISONED_POSITION)
    bad, good = prompts_of(6, [50, 40])
    requests = [request_of(name, p, max_tokens=0, prompt_logprobs=1) for name, p in (("bad", bad), ("good", good))]
    results, expected = run(engine, *requests), run(clean, *requests)
    assert (results["bad", 0].error_code, results["bad", 0].prompt_logprobs) == ("nan_logits", [])
    found = [logprob.logprob for logprob in results["good", 0].prompt_logprobs]
    assert found == pytest.approx([logprob.logprob for logprob in expected["good", 0].prompt_logprobs], abs=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "params",
    [{}, {"temperature": 1.0}, {"logprobs": 2}, {"logit_bias": {3: 5.0}}, {"max_tokens": 0, "prompt_logprobs": 0}],
    ids=str,
)
def test_not_finite_only_in_the_logits(poisoned, run, request_of, value, params):
    """One bad row in the head: hidden states and KV are fine, but no token may be made of such logits."""
    engine = poisoned("lm_head.weight", POISONED_TOKEN, value)
    result = run(engine, request_of("a", [1, 2, 3], **{"max_tokens": 4} | params))["a", 0]
    assert (result.finish_reason, result.error_code) == ("error", "nan_logits")
    assert result.token_ids == result.logprobs == result.prompt_logprobs == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_step_that_raises(small, load_engine, monkeypatch, prompts_of, run, request_of, clean, when):
    """The request at fault ends with an error; those beside and after it are right. `after`: KV was written."""
    engine = load_engine(small.folder, max_num_seqs=2, kv_cache_tokens=128)
    execute, calls = engine.runner.execute, []

    def fail_from_the_third_step(scheduled, **options):
        calls.append(len(scheduled))
        if len(calls) < 3 or all(item.sequence.request_id != "1" for item in scheduled):
            return execute(scheduled, **options)
        if when == "after":
            execute(scheduled, **options)
        raise RuntimeError("out of luck")

    monkeypatch.setattr(engine.runner, "execute", fail_from_the_third_step)
    prompts = prompts_of(7, [20, 18, 30, 25])
    requests = [request_of(str(i), prompt, max_tokens=8, ignore_eos=True) for i, prompt in enumerate(prompts)]
    results, expected = run(engine, *requests), run(clean, *requests)
    assert (results["1", 0].finish_reason, results["1", 0].error_code) == ("error", "generation_failed")
    assert results["1", 0].token_ids == expected["1", 0].token_ids[:2]
    for i in (0, 2, 3):
        assert results[str(i), 0].token_ids == expected[str(i), 0].token_ids
    monkeypatch.undo()
    assert tokens_of(run(engine, *requests)) == tokens_of(expected)


def test_a_step_that_raises_after_it_wrote_nan(poisoned, monkeypatch, clean, prompts_of, run, request_of):
    """Nobody has looked at the logits, so nobody knows of the NaN that is in the blocks given back."""
    engine = poisoned("wpe.weight", POISONED_POSITION, kv_cache_tokens=128)
    execute = engine.runner.execute

    def fail_once(scheduled, **options):
        execute(scheduled, **options)
        monkeypatch.setattr(engine.runner, "execute", execute)
        raise RuntimeError("out of luck")

    monkeypatch.setattr(engine.runner, "execute", fail_once)
    bad, short, longer = prompts_of(8, [120, 5, 30])
    assert run(engine, request_of("bad", bad, max_tokens=1))["bad", 0].error_code == "generation_failed"
    requests = [
        request_of("short", short, max_tokens=9, ignore_eos=True),
        request_of("longer", longer, max_tokens=9, ignore_eos=True),
    ]
    assert tokens_of(run(engine, *requests)) == tokens_of(run(clean, *requests))


def test_a_step_that_raises_leaves_the_prefix_that_others_share(
    small, load_engine, monkeypatch, clean, prompts_of, run, request_of
):
    engine = load_engine(small.folder)
    (prompt,) = prompts_of(9, [3 * BLOCK_SIZE + 5])
    run(engine, request_of("first", prompt, max_tokens=1))

    def fail(scheduled, **options):
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr(engine.runner, "execute", fail)
        assert run(engine, request_of("unlucky", prompt, max_tokens=1))["unlucky", 0].error_code == "generation_failed"
    request = request_of("again", prompt, max_tokens=6, ignore_eos=True)
    again = run(engine, request)["again", 0]
    assert again.num_cached_tokens == 3 * BLOCK_SIZE
    assert again.token_ids == run(clean, request)["again", 0].token_ids


# Abort


def free_blocks(engine):
    return engine.stats().num_free_kv_blocks


def test_abort_in_every_phase_gives_the_blocks_back_at_once(small, load_engine, prompts_of, step, request_of):
    engine = load_engine(small.folder, max_num_batched_tokens=16, max_num_seqs=4)
    total = free_blocks(engine)
    (prompt,) = prompts_of(9, [60])
    for num_steps in (0, 1, 3, 4, 8):  # waiting, first chunk, last chunk but one, first token, decoding
        engine.add_request(request_of("a", prompt, max_tokens=20, ignore_eos=True))
        for _ in range(num_steps):
            step(engine, {})
        assert (free_blocks(engine) < total) == (num_steps > 0)
        engine.abort("a")
        assert free_blocks(engine) == total
        assert not engine.has_work
        assert not engine.is_active("a")
        assert engine.step() == []


def test_abort_of_one_choice_leaves_the_others(small, load_engine, prompts_of, step, drain, run, request_of):
    (prompt,) = prompts_of(10, [20])
    request = request_of("a", prompt, n=3, max_tokens=12, temperature=1.0, ignore_eos=True)
    expected = tokens_of(run(load_engine(small.folder), request))
    engine, results = load_engine(small.folder), {}
    engine.add_request(request)
    for _ in range(5):
        step(engine, results)
    engine.abort("a", 1)
    assert engine.is_active("a")
    drain(engine, results)
    assert results["a", 1].finish_reason is None
    assert len(results["a", 1].token_ids) < 12
    assert {key: results[key].token_ids for key in (("a", 0), ("a", 2))} == {
        key: expected[key] for key in (("a", 0), ("a", 2))
    }


def test_abort_of_the_one_who_computes_a_prefix_that_others_wait_for(
    small, load_engine, prompts_of, step, drain, request_of, hugging_face_greedy
):
    engine, results = load_engine(small.folder, max_num_batched_tokens=16, max_num_seqs=4), {}
    (prompt,) = prompts_of(11, [60])
    for name in ("first", "second", "third"):
        engine.add_request(request_of(name, prompt, max_tokens=6, ignore_eos=True))
    step(engine, results)
    assert engine.stats().num_waiting == 2
    engine.abort("first")
    drain(engine, results)
    for name in ("second", "third"):
        assert results[name, 0].token_ids == hugging_face_greedy(small.model, prompt, 6, eos_token_id=None)


def test_unknown_ids_are_ignored(clean):
    clean.abort("nobody")
    clean.abort("nobody", 3)
    assert not clean.has_work


@pytest.mark.parametrize("seed", range(4))
def test_any_mix_gives_every_block_back_and_disturbs_nobody(
    poisoned, clean, prompts_of, run, step, drain, request_of, seed
):
    """Finishes, stops, aborts, NaN and refusals in random order, in a cache that is always short of room."""
    rng = random.Random(seed)
    engine = poisoned("wpe.weight", 100, kv_cache_tokens=384, max_num_seqs=6, max_num_batched_tokens=40)
    shared = prompts_of(seed, [48])[0]
    results, aborted, requests = {}, set(), {}
    for i in range(40):
        own = prompts_of(1000 + i, [rng.randint(1, 70)])[0]
        prompt = (shared[: rng.choice([0, 16, 33, 48])] + own)[:110]
        params = {"max_tokens": rng.randint(0, 128 - len(prompt)), "temperature": rng.choice([0.0, 1.0]), "seed": i}
        params["stop_token_ids"] = tuple(rng.sample(range(210), 3))
        requests[str(i)] = request_of(str(i), prompt, n=rng.choice([1, 1, 3]), **params)
        engine.add_request(requests[str(i)])
        for _ in range(rng.randint(0, 6)):
            step(engine, results)
        if rng.random() < 0.3:
            victim = str(rng.randint(0, i))
            aborted.add(victim)
            engine.abort(victim)
    drain(engine, results)
    expected = run(clean, *(request for name, request in requests.items() if name not in aborted))
    reasons = set()
    for key, wanted in expected.items():
        prompt = requests[key[0]].prompt_token_ids
        ran = len(prompt) + len(wanted.token_ids) - (wanted.token_ids != [])  # the last token is never run
        reasons.add(results[key].finish_reason)
        if ran > 100:
            assert results[key].error_code == "nan_logits"
        else:
            assert results[key].token_ids == wanted.token_ids
            assert results[key].finish_reason == wanted.finish_reason
    assert reasons == {"stop", "length", "error"}
    assert aborted
    assert bool(torch.isfinite(engine.runner.kv_cache.key).all() and torch.isfinite(engine.runner.kv_cache.value).all())


def test_a_beam_that_breaks_ends_its_search_and_only_that(small, poisoned, load_engine, request_of, run, prompts_of):
    """The token that the last of four beams begins with is poisoned: the client hears of choices, never of beams."""
    (prompt,) = prompts_of(3, [12])
    first = request_of("first", prompt, max_tokens=1, temperature=0.0, logprobs=4, ignore_eos=True)
    (best,) = run(load_engine(small.folder), first)["first", 0].logprobs
    engine = poisoned("transformer.wte.weight", best.top[3][0])
    search = request_of("search", prompt, max_tokens=8, beams=BeamParams(num_beams=4), ignore_eos=True)
    neighbour = request_of("neighbour", [3, 4, 5], max_tokens=1, temperature=0.0, ignore_eos=True)
    results = run(engine, search, neighbour)
    assert set(results) == {("search", 0), ("neighbour", 0)}
    assert (results["search", 0].finish_reason, results["search", 0].error_code) == ("error", "nan_logits")
    assert results["neighbour", 0].finish_reason == "length"
    assert engine.block_manager.num_free_blocks == engine.block_manager.num_blocks
