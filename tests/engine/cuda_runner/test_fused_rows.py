"""How many rows a decode step may have to be taken by the fused kernels."""

import pytest

from tests.engine.cuda_runner.conftest import CPU, WORKING
from zeroshot.engine.engine import Engine
from zeroshot.engine.loader import max_fused_rows
from zeroshot.model.config import GPT2Config
from zeroshot.model.fused_decode import MAX_FUSED_ROWS, FusedOps
from zeroshot.model.gpt2 import GPT2
from zeroshot.model.ops import Ops, device_backend
from zeroshot.model.weights import load_weights
from zeroshot.settings import EngineSettings
from zeroshot_kernels.advance.reference import advance_reference
from zeroshot_kernels.embedding.reference import embedding_reference
from zeroshot_kernels.lm_head_sampling.reference import lm_head_sampling_reference


@pytest.fixture(scope="module")
def small(checkpoint):
    return checkpoint()


@pytest.mark.parametrize(
    ("options", "n_embd", "expected"),
    [
        ({}, 768, 4),
        ({}, 1024, 2),
        ({"fused_decode": "on"}, 1024, MAX_FUSED_ROWS),
        ({"speculative_ngram": 2}, 1024, MAX_FUSED_ROWS),
        ({"speculative_model": "distilgpt2"}, 1024, MAX_FUSED_ROWS),
    ],
    ids=["where they are faster", "where rows cost more", "where they are wanted", "n-grams", "a draft"],
)
def test_guesses_have_the_bits_of_a_row_alone(options, n_embd, expected):
    config = GPT2Config(n_embd=n_embd, n_head=n_embd // 64)
    assert max_fused_rows(EngineSettings(**options), config) == expected


@pytest.mark.parametrize("most", [1, 2, 4])
def test_a_step_of_more_rows_takes_the_plain_path(small, run, request_of, hugging_face_greedy, most):
    fused_steps = []

    def embedding(token_ids, *tables):
        fused_steps.append(len(token_ids))
        return embedding_reference(token_ids, *tables)

    config = GPT2Config.from_folder(small.folder)
    weights = load_weights(small.folder, config, dtype=small.model.dtype, device=CPU)
    backend = device_backend(Ops(), WORKING, FusedOps(embedding=embedding), "triton", max_fused_rows=most)
    engine = Engine(GPT2(config, weights, backend), EngineSettings(kv_block_size=16, max_num_seqs=4))
    for num_prompts in (1, 2, 4):
        fused_steps.clear()
        prompts = [[5 + i, 6, 7] for i in range(num_prompts)]
        requests = [request_of(str(i), prompt, max_tokens=6, ignore_eos=True) for i, prompt in enumerate(prompts)]
        results = run(engine, *requests)
        assert set(fused_steps) == ({num_prompts} if num_prompts <= most else set())
        for i, prompt in enumerate(prompts):
            expected = hugging_face_greedy(small.model, prompt, 6, eos_token_id=None)
            assert results[str(i), 0].token_ids == expected


def test_no_more_is_guessed_than_has_the_bits_of_a_row_alone(small, run, request_of):
    rows = []

    def embedding(token_ids, *tables):
        rows.append(len(token_ids))
        return embedding_reference(token_ids, *tables)

    def model_of(**ops):
        config = GPT2Config.from_folder(small.folder)
        weights = load_weights(small.folder, config, dtype=small.model.dtype, device=CPU)
        return GPT2(config, weights, device_backend(Ops(), WORKING, FusedOps(**ops), "triton"))

    options = {"speculative_model": str(small.folder), "speculative_tokens": 16}
    settings = EngineSettings(kv_block_size=16, max_num_seqs=1, **options)
    engine = Engine(model_of(embedding=embedding), settings, model_of())
    run(engine, request_of("a", [1, 2, 3], max_tokens=33, ignore_eos=True))
    assert rows == [MAX_FUSED_ROWS] * (32 // MAX_FUSED_ROWS)


@pytest.mark.parametrize(
    ("options", "num_prompts", "ends"),
    [
        ({}, 1, ["lm_head_sampling", "advance"]),
        ({"temperature": 1.0}, 2, ["lm_head_sampling", "advance"]),
        ({"temperature": 1.0, "top_k": 5}, 1, []),
        ({"logprobs": 1}, 1, []),
        ({}, 3, []),
    ],
    ids=["greedy", "two rows", "a filter", "log-probabilities", "more rows than the fused path takes"],
)
def test_what_may_start_early_follows_the_fused_layers_and_nothing_else(
    small, run, request_of, options, num_prompts, ends
):
    """A prompt's token is drawn by the ops of the plain path: they are not behind the layers' kernels."""
    calls = []

    def noted(name, reference):
        def call(*arguments, **options):
            calls.append(name)
            return reference(*arguments, **options)

        return call

    fused = FusedOps(
        embedding=noted("embedding", embedding_reference),
        lm_head_sampling=noted("lm_head_sampling", lm_head_sampling_reference),
        advance=noted("advance", advance_reference),
    )
    config = GPT2Config.from_folder(small.folder)
    weights = load_weights(small.folder, config, dtype=small.model.dtype, device=CPU)
    backend = device_backend(Ops(), WORKING, fused, "triton", max_fused_rows=2)
    engine = Engine(GPT2(config, weights, backend), EngineSettings(kv_block_size=16, max_num_seqs=3))
    requests = [request_of(str(i), [5, 6, 7], max_tokens=4, ignore_eos=True, **options) for i in range(num_prompts)]
    run(engine, *requests)
    one_step = ["embedding", *ends] if num_prompts <= 2 else []
    assert calls == one_step * (len(calls) // max(1, len(one_step)))
    assert bool(calls) == (num_prompts <= 2)
