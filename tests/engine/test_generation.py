"""What the engine generates: Hugging Face's greedy tokens, and the same tokens however a request is run."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer as BPETokenizer
from tokenizers.models import BPE

from tests.conftest import DEMO
from zeroshot.types import Grammar
from zeroshot_kernels.sampling.reference import sample_reference

LENGTHS = [1, 2, 15, 16, 17, 31, 33, 48, 5, 64, 3, 80]
SAMPLED = {"temperature": 0.9, "top_k": 40, "top_p": 0.95, "seed": 1234, "max_tokens": 20, "ignore_eos": True}


@pytest.fixture(scope="module")
def small(checkpoint):
    return checkpoint()


@pytest.fixture(scope="module", params=["auto", "off"])
def cpu_kernels(request):
    return request.param


@pytest.fixture(scope="module")
def engine(small, load_engine, cpu_kernels):
    return load_engine(small.folder, kv_cache_tokens=4096, cpu_kernels=cpu_kernels)


@pytest.fixture
def fresh(small, load_engine, cpu_kernels):
    """fresh(**EngineSettings): an engine with an empty cache."""
    return lambda **options: load_engine(small.folder, cpu_kernels=cpu_kernels, **options)


# Greedy: Hugging Face's tokens


def test_greedy_alone(engine, small, prompts_of, run, request_of, hugging_face_greedy):
    for prompt in prompts_of(1, LENGTHS):
        result = run(engine, request_of("a", prompt, max_tokens=32))["a", 0]
        expected = hugging_face_greedy(small.model, prompt, 32)
        assert result.token_ids == expected
        assert result.finish_reason == ("stop" if expected[-1] == 210 else "length")


def test_greedy_in_one_batch(fresh, small, prompts_of, run, request_of, hugging_face_greedy):
    prompts = prompts_of(2, LENGTHS)
    max_tokens = [32 - i for i in range(len(prompts))]
    requests = [request_of(str(i), p, max_tokens=m) for i, (p, m) in enumerate(zip(prompts, max_tokens, strict=True))]
    results = run(fresh(), *requests)
    for i, prompt in enumerate(prompts):
        assert results[str(i), 0].token_ids == hugging_face_greedy(small.model, prompt, max_tokens[i])


def test_greedy_with_more_requests_than_room(fresh, small, prompts_of, run, request_of, hugging_face_greedy):
    """Three at a time, sixteen tokens a step, a cache for little more than one context."""
    prompts = prompts_of(3, LENGTHS * 2)
    requests = [request_of(str(i), prompt, max_tokens=12) for i, prompt in enumerate(prompts)]
    results = run(fresh(max_num_seqs=3, max_num_batched_tokens=16, kv_cache_tokens=160, kv_block_size=8), *requests)
    for i, prompt in enumerate(prompts):
        assert results[str(i), 0].token_ids == hugging_face_greedy(small.model, prompt, 12)


def test_the_real_vocabulary(checkpoint, load_engine, prompts_of, run, request_of, hugging_face_greedy):
    folder, model = checkpoint(vocab_size=50257, n_embd=32, n_head=2)
    engine = load_engine(folder)
    prompts = prompts_of(4, [7, 20], vocab_size=50256)
    results = run(engine, *(request_of(str(i), prompt, max_tokens=10) for i, prompt in enumerate(prompts)))
    for i, prompt in enumerate(prompts):
        assert results[str(i), 0].token_ids == hugging_face_greedy(model, prompt, 10)


def test_two_threads(fresh, small, prompts_of, run, request_of, hugging_face_greedy):
    try:
        engine = fresh(num_threads=2)
        assert torch.get_num_threads() == 2
        prompts = prompts_of(5, [40, 3])
        results = run(engine, *(request_of(str(i), prompt, max_tokens=10) for i, prompt in enumerate(prompts)))
    finally:
        torch.set_num_threads(1)
    for i, prompt in enumerate(prompts):
        assert results[str(i), 0].token_ids == hugging_face_greedy(small.model, prompt, 10)


def test_exactly_the_last_position_of_1024(checkpoint, load_engine, prompts_of, run, request_of, hugging_face_greedy):
    folder, model = checkpoint(n_positions=1024, n_embd=32, n_head=2)
    engine = load_engine(folder, max_num_seqs=4)
    (prompt,) = prompts_of(6, [1000])
    expected = hugging_face_greedy(model, prompt, 24, eos_token_id=None)
    result = run(engine, request_of("a", prompt, max_tokens=24, ignore_eos=True))["a", 0]
    assert len(result.token_ids) == 24
    assert result.token_ids == expected
    full = (prompt + expected)[:1023]
    assert run(engine, request_of("b", full, max_tokens=1))["b", 0].token_ids == expected[-1:]
    scored = run(engine, request_of("c", [*full, expected[-1]], max_tokens=0, prompt_logprobs=0))["c", 0]
    assert len(scored.prompt_logprobs) == 1023
    assert scored.prompt_logprobs[-1].rank == 1


# The same request, run in other ways: the same tokens


@pytest.fixture(scope="module")
def reference(small, load_engine, prompts_of, run, request_of):
    """(prompts, what each one gives alone in a fresh engine)"""
    prompts = prompts_of(7, [37, 4, 16, 50])
    engine_of = lambda: load_engine(small.folder)  # noqa: E731
    return prompts, [run(engine_of(), request_of("r", p, **SAMPLED))["r", 0].token_ids for p in prompts]


def test_sampling_is_not_greedy_and_depends_on_the_seed(engine, reference, run, request_of):
    prompts, alone = reference
    other_seed = run(engine, request_of("s", prompts[0], **SAMPLED | {"seed": 99}))["s", 0].token_ids
    greedy = run(engine, request_of("g", prompts[0], max_tokens=20, ignore_eos=True))["g", 0].token_ids
    assert len({tuple(alone[0]), tuple(other_seed), tuple(greedy)}) == 3


def test_draws_are_a_function_of_seed_choice_and_position(
    reference, small, hugging_face_logits, run, request_of, fresh
):
    """Hugging Face's logits and the sampling op alone, without engine, give the same tokens."""
    prompts, alone = reference
    four = run(fresh(), request_of("a", prompts[1], n=4, **SAMPLED))
    for choice, tokens in [(0, alone[1]), *((choice, four["a", choice].token_ids) for choice in range(4))]:
        text = list(prompts[1])
        for expected in tokens:
            logits = hugging_face_logits(small.model, text)[-1]
            options = {name: SAMPLED[name] for name in ("temperature", "top_k", "top_p", "seed")}
            assert sample_reference(logits, min_p=0.0, choice=choice, position=len(text), **options) == expected
            text.append(expected)


def test_in_a_batch_in_any_order(fresh, reference, prompts_of, run, request_of):
    prompts, alone = reference
    others = [request_of(f"o{i}", p, max_tokens=9, temperature=1.0) for i, p in enumerate(prompts_of(8, [3, 60, 21]))]
    own = [request_of(str(i), prompt, **SAMPLED) for i, prompt in enumerate(prompts)]
    for requests in (own + others, others + own[::-1]):
        results = run(fresh(), *requests)
        assert [results[str(i), 0].token_ids for i in range(4)] == alone


def test_joining_a_batch_that_runs(fresh, reference, prompts_of, step, drain, request_of):
    prompts, alone = reference
    engine, results = fresh(), {}
    for i, other in enumerate(prompts_of(9, [44, 12])):
        engine.add_request(request_of(f"o{i}", other, max_tokens=30, temperature=1.0))
    for i, prompt in enumerate(prompts):
        step(engine, results)
        engine.add_request(request_of(str(i), prompt, **SAMPLED))
    drain(engine, results)
    assert [results[str(i), 0].token_ids for i in range(4)] == alone


@pytest.mark.parametrize("budget", [16, 17, 23, 64])
def test_chunked(fresh, reference, run, request_of, budget):
    prompts, alone = reference
    engine = fresh(max_num_batched_tokens=budget, max_num_seqs=8)
    results = run(engine, *(request_of(str(i), prompt, **SAMPLED) for i, prompt in enumerate(prompts)))
    assert [results[str(i), 0].token_ids for i in range(4)] == alone


def test_a_prompt_that_takes_long_is_read_in_shorter_steps(
    checkpoint, load_engine, prompts_of, drain, run, request_of, monkeypatch
):
    """A tenth of a second a token: in steps of 512 tokens the engine would be silent for a minute, and be replaced."""
    (prompt,) = prompts_of(11, [600])
    folder = checkpoint(n_positions=1024, n_embd=32, n_head=2).folder
    expected = run(load_engine(folder), request_of("a", prompt, max_tokens=3))["a", 0].token_ids
    engine, durations, now = load_engine(folder), [], [0.0]
    execute = engine.runner.execute

    def slowly(scheduled, **options):
        durations.append(sum(item.num_tokens for item in scheduled) / 10)
        now[0] += durations[-1]
        return execute(scheduled, **options)

    monkeypatch.setattr(engine.runner, "execute", slowly)
    monkeypatch.setattr("zeroshot.engine.engine.time", SimpleNamespace(monotonic=lambda: now[0]))
    engine.add_request(request_of("a", prompt, max_tokens=3))
    assert drain(engine)["a", 0].token_ids == expected
    assert max(durations[1:]) <= 5.0 < durations[0] < 30.0


@pytest.mark.parametrize("block_size", [1, 3, 16, 128])
def test_with_a_cached_prefix(fresh, reference, run, request_of, block_size):
    prompts, alone = reference
    engine = fresh(kv_block_size=block_size)
    for i, prompt in enumerate(prompts):
        cold = run(engine, request_of("cold", prompt, **SAMPLED))["cold", 0]
        warm = run(engine, request_of("warm", prompt, **SAMPLED))["warm", 0]
        assert cold.token_ids == warm.token_ids == alone[i]
        assert cold.num_cached_tokens == 0
        assert warm.num_cached_tokens == (len(prompt) - 1) // block_size * block_size
    assert engine.stats().cached_tokens_total == sum((len(p) - 1) // block_size * block_size for p in prompts)


def test_a_prompts_last_token_alone_in_a_chunk_changes_no_bit(fresh, prompts_of, step, drain, run, request_of):
    """Left over by the step's budget, or by the prefix cache."""
    engine = fresh(kv_block_size=16)
    if engine.model.layer_loop is None:
        pytest.skip("the bits of PyTorch's operators depend on the batch")
    prompt, other = prompts_of(10, [33, 3])
    options = {"max_tokens": 4, "logprobs": 0, "ignore_eos": True}
    whole = run(engine, request_of("whole", prompt, **options))["whole", 0]
    cached = run(engine, request_of("cached", prompt, **options))["cached", 0]
    assert cached.num_cached_tokens == 32
    engine, results = fresh(max_num_batched_tokens=17, max_num_seqs=8), {}
    engine.add_request(request_of("other", other, max_tokens=40, ignore_eos=True))
    step(engine, results)
    engine.add_request(request_of("cut", prompt, **options))  # 16 tokens beside the other's, 16, and 1
    cut = drain(engine, results)["cut", 0]
    assert cached.logprobs == cut.logprobs == whole.logprobs


def test_continuing_generated_text_uses_its_cache(fresh, reference, run, request_of, small, hugging_face_greedy):
    prompts, _ = reference
    engine = fresh()
    first = run(engine, request_of("a", prompts[0], max_tokens=30, ignore_eos=True))["a", 0].token_ids
    longer = prompts[0] + first
    second = run(engine, request_of("b", longer, max_tokens=10, ignore_eos=True))["b", 0]
    assert second.num_cached_tokens == 64  # of 67 tokens, the last of which was never run
    assert second.token_ids == hugging_face_greedy(small.model, longer, 10, eos_token_id=None)


def test_choices(fresh, reference, run, request_of):
    """Choice 0 is the request alone; every choice is its own; the prompt is computed once."""
    prompts, alone = reference
    engine = fresh()
    four = run(engine, request_of("a", prompts[0], n=4, **SAMPLED))
    assert four["a", 0].token_ids == alone[0]
    assert len({tuple(four["a", i].token_ids) for i in range(4)}) == 4
    assert [four["a", i].num_cached_tokens for i in range(4)] == [0, 32, 32, 32]
    two = run(fresh(max_num_batched_tokens=16, max_num_seqs=1), request_of("b", prompts[0], n=2, **SAMPLED))
    assert two["b", 1].token_ids == four["a", 1].token_ids


def test_greedy_choices_are_equal(engine, prompts_of, run, request_of):
    (prompt,) = prompts_of(10, [18])
    results = run(engine, request_of("a", prompt, n=3, max_tokens=8))
    assert results["a", 0].token_ids == results["a", 1].token_ids == results["a", 2].token_ids


# Where a choice ends


@pytest.fixture(scope="module")
def greedy(engine, prompts_of, run, request_of):
    """(a prompt, its first 20 greedy tokens, end of text or not)"""
    (prompt,) = prompts_of(11, [12])
    return prompt, run(engine, request_of("a", prompt, max_tokens=20, ignore_eos=True))["a", 0].token_ids


def test_stop_token_ids(engine, greedy, run, request_of):
    prompt, tokens = greedy
    stop = tokens[5]
    end = tokens.index(stop) + 1
    result = run(engine, request_of("a", prompt, max_tokens=20, stop_token_ids=(stop,)))["a", 0]
    assert result.token_ids == tokens[:end]
    assert (result.finish_reason, result.stop_token_id) == ("stop", stop)
    ignoring = run(engine, request_of("b", prompt, max_tokens=20, stop_token_ids=(stop,), ignore_eos=True))["b", 0]
    assert ignoring.token_ids == tokens[:end]


def test_end_of_text_and_ignore_eos(engine, greedy, run, request_of):
    prompt, _ = greedy
    always = {"max_tokens": 4, "logit_bias": {210: 1000.0}}
    result = run(engine, request_of("a", prompt, **always))["a", 0]
    assert (result.token_ids, result.finish_reason, result.stop_token_id) == ([210], "stop", 210)
    result = run(engine, request_of("b", prompt, ignore_eos=True, **always))["b", 0]
    assert (result.token_ids, result.finish_reason, result.stop_token_id) == ([210] * 4, "length", None)


def test_min_tokens(engine, greedy, run, request_of):
    prompt, tokens = greedy
    only = {"stop_token_ids": (tokens[0],), "min_tokens": 5, "max_tokens": 5}
    result = run(engine, request_of("only", prompt, **only))["only", 0]
    assert (len(result.token_ids), result.finish_reason) == (5, "length")
    assert tokens[0] not in result.token_ids
    bias = {210: 1000.0, 7: 500.0}
    result = run(engine, request_of("a", prompt, max_tokens=9, min_tokens=3, logit_bias=bias))["a", 0]
    assert (result.token_ids, result.finish_reason) == ([7, 7, 7, 210], "stop")
    forbidden = {"stop_token_ids": (7,), "logit_bias": bias | {8: 100.0}, "min_tokens": 2, "max_tokens": 9}
    result = run(engine, request_of("b", prompt, ignore_eos=True, **forbidden))["b", 0]
    assert result.token_ids[:2] != [210, 210]
    assert 7 not in result.token_ids[:2]
    result = run(engine, request_of("c", prompt, max_tokens=3, min_tokens=3, logit_bias=bias))["c", 0]
    assert (result.token_ids, result.finish_reason) == ([7, 7, 7], "length")


# A checkpoint with several ends of text


@pytest.fixture
def with_ends(small, load_engine, cpu_kernels, tmp_path):
    """with_ends(ids, folder=...): an engine on the same weights, with these in config.json."""

    def load(ends, folder=small.folder):
        copy = tmp_path / "several"
        shutil.copytree(folder, copy)
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | {"eos_token_id": ends}))
        return load_engine(copy, cpu_kernels=cpu_kernels)

    return load


def test_any_end_of_text_ends_a_text(with_ends, small, prompts_of, run, request_of, hugging_face_greedy):
    prompts = prompts_of(14, LENGTHS)
    others = [hugging_face_greedy(small.model, prompt, 32)[-1] for prompt in prompts[:2]]
    ends = [210, *others, 50256]  # the last one no model of this size can draw
    engine = with_ends(ends)
    for max_tokens, min_tokens in ((32, 0), (32, 9)):
        params = {"max_tokens": max_tokens, "min_tokens": min_tokens}
        results = run(engine, *(request_of(str(i), prompt, **params) for i, prompt in enumerate(prompts)))
        for i, prompt in enumerate(prompts):
            options = {"min_new_tokens": min_tokens} if min_tokens else {}
            expected = hugging_face_greedy(small.model, prompt, max_tokens, eos_token_id=ends[:-1], **options)
            result = results[str(i), 0]
            assert result.token_ids == expected
            end = expected[-1] if expected[-1] in ends else None
            assert (result.finish_reason, result.stop_token_id) == ("length" if end is None else "stop", end)
        assert {result.stop_token_id for result in results.values()} >= {*others, None} - {210}


def test_ignore_eos_ignores_all_of_them(with_ends, greedy, run, request_of):
    prompt, tokens = greedy
    engine = with_ends([210, tokens[5]])
    ended = tokens[: tokens.index(tokens[5]) + 1]
    assert run(engine, request_of("a", prompt, max_tokens=20))["a", 0].token_ids == ended
    assert run(engine, request_of("b", prompt, max_tokens=20, ignore_eos=True))["b", 0].token_ids == tokens
    stop = request_of("c", prompt, max_tokens=20, ignore_eos=True, stop_token_ids=(tokens[5],))
    assert run(engine, stop)["c", 0].stop_token_id == tokens[5]


def test_an_end_that_is_text_is_text_to_a_grammar(with_ends, checkpoint, run, request_of):
    large = checkpoint(vocab_size=50257, n_positions=64)
    a = 64
    engine = with_ends([50256, a], large.folder)
    grammar = Grammar(kind="regex", source="a", field="structured_outputs.regex")
    result = run(engine, request_of("a", [1, 2, 3], max_tokens=8, grammar=grammar))["a", 0]
    assert (result.token_ids, result.finish_reason, result.stop_token_id) == ([a], "stop", None)


def test_a_text_with_a_grammar_ends_with_any_end_that_is_no_text(with_ends, checkpoint, tmp_path, run, request_of):
    """Such as the end of a chat model's message: that model hardly ever draws the first one."""
    folder = shutil.copytree(checkpoint(vocab_size=50258, n_positions=64).folder, tmp_path / "chat")
    tokenizer = BPETokenizer(BPE.from_file(str(DEMO / "vocab.json"), str(DEMO / "merges.txt")))
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    engine, a = with_ends([50256, 50257], folder), 64
    grammar = Grammar(kind="regex", source="a{3,9}", field="structured_outputs.regex")
    for end in (50256, 50257):
        bias = {end: 100.0, a: 90.0}
        result = run(engine, request_of("a", [1, 2, 3], max_tokens=20, grammar=grammar, logit_bias=bias))["a", 0]
        assert (result.token_ids, result.finish_reason, result.stop_token_id) == ([a] * 3 + [end], "stop", end)


def test_min_tokens_when_end_of_text_is_outside_the_vocabulary(checkpoint, load_engine, run, request_of):
    """Hugging Face's default end of text is 50256, whatever the size of the vocabulary."""
    engine = load_engine(checkpoint(eos_token_id=50256).folder)
    result = run(engine, request_of("a", [1, 2, 3], max_tokens=4, min_tokens=2))["a", 0]
    assert (len(result.token_ids), result.finish_reason) == (4, "length")


def test_max_tokens(engine, greedy, run, request_of):
    prompt, tokens = greedy
    for max_tokens in (1, 2, 20):
        result = run(engine, request_of("a", prompt, max_tokens=max_tokens, ignore_eos=True))["a", 0]
        assert (result.token_ids, result.finish_reason) == (tokens[:max_tokens], "length")


def test_max_tokens_zero_runs_the_prompt_only(fresh, greedy, run, request_of):
    prompt, tokens = greedy
    engine = fresh(kv_block_size=4)
    result = run(engine, request_of("a", prompt, max_tokens=0))["a", 0]
    assert (result.token_ids, result.finish_reason) == ([], "length")
    warm = run(engine, request_of("b", prompt, max_tokens=5, ignore_eos=True))["b", 0]
    assert warm.num_cached_tokens == 8
    assert warm.token_ids == tokens[:5]
