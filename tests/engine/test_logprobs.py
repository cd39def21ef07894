"""Log-probabilities: the raw log-softmax of Hugging Face's logits, whatever the request does with them."""

import pytest

TOLERANCE = 1e-4
BLOCK_SIZE = 8


@pytest.fixture(scope="module")
def small(checkpoint):
    return checkpoint(n_layer=3)


@pytest.fixture
def fresh(small, load_engine):
    return lambda **options: load_engine(small.folder, **({"kv_block_size": BLOCK_SIZE} | options))


@pytest.fixture(scope="module")
def expected_logprobs(small, hugging_face_logits):
    return lambda token_ids: hugging_face_logits(small.model, token_ids).log_softmax(-1)


def assert_scores(found, token_ids, rows, num_top):
    """found: TokenLogprobs of token_ids; rows: [len(token_ids), vocab_size], Hugging Face's log-probabilities."""
    assert [logprob.token_id for logprob in found] == token_ids
    for logprob, row in zip(found, rows, strict=True):
        value = float(row[logprob.token_id])
        assert logprob.logprob == pytest.approx(value, abs=TOLERANCE)
        assert int((row > value + TOLERANCE).sum()) < logprob.rank <= int((row >= value - TOLERANCE).sum())
        best = row.topk(num_top).values.tolist()
        assert [value for _, value in logprob.top] == pytest.approx(best, abs=TOLERANCE)
        assert [float(row[token_id]) for token_id, _ in logprob.top] == pytest.approx(best, abs=TOLERANCE)
        assert len({token_id for token_id, _ in logprob.top}) == num_top


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.3, "seed": 1},
        {"temperature": 2.0, "top_k": 3, "top_p": 0.5, "min_p": 0.1, "seed": 2},
        {"repetition_penalty": 1.8, "presence_penalty": 1.5, "frequency_penalty": 1.5},
        {"logit_bias": {3: 100.0, 5: -100.0}},
        {"min_tokens": 12, "logit_bias": {210: 50.0}},
    ],
    ids=str,
)
@pytest.mark.parametrize("num_top", [0, 5])
def test_generated_tokens(fresh, prompts_of, run, request_of, expected_logprobs, params, num_top):
    prompts = prompts_of(1, [21, 4])
    options = {"max_tokens": 12, "logprobs": num_top, "ignore_eos": True} | params
    results = run(fresh(), *(request_of(str(i), prompt, **options) for i, prompt in enumerate(prompts)))
    for i, prompt in enumerate(prompts):
        result = results[str(i), 0]
        assert len(result.token_ids) == 12
        rows = expected_logprobs(prompt + result.token_ids)[len(prompt) - 1 : -1]
        assert_scores(result.logprobs, result.token_ids, rows, num_top)


def test_not_asked_for_not_given(fresh, run, request_of):
    result = run(fresh(), request_of("a", [1, 2, 3], max_tokens=3, temperature=1.0))["a", 0]
    assert result.logprobs == result.prompt_logprobs == []


def test_asking_does_not_change_the_tokens(fresh, prompts_of, run, request_of):
    (prompt,) = prompts_of(2, [19])
    for params in ({}, {"temperature": 1.0, "seed": 5}):
        plain, scored = fresh(), fresh()
        without = run(plain, request_of("a", prompt, max_tokens=15, ignore_eos=True, **params))["a", 0]
        options = {"logprobs": 3, "prompt_logprobs": 3, "ignore_eos": True} | params
        asked = run(scored, request_of("a", prompt, max_tokens=15, **options))["a", 0]
        assert without.token_ids == asked.token_ids


@pytest.mark.parametrize("budget", [16, 23, 512])
@pytest.mark.parametrize("num_top", [0, 3])
@pytest.mark.parametrize("max_tokens", [0, 6])
def test_prompt_in_one_piece_and_in_chunks(
    fresh, prompts_of, run, request_of, expected_logprobs, budget, num_top, max_tokens
):
    prompts = prompts_of(3, [40, 1, 2, 33])
    engine = fresh(max_num_batched_tokens=budget, max_num_seqs=4)
    requests = [
        request_of(str(i), prompt, max_tokens=max_tokens, prompt_logprobs=num_top, ignore_eos=True)
        for i, prompt in enumerate(prompts)
    ]
    results = run(engine, *requests)
    for i, prompt in enumerate(prompts):
        result = results[str(i), 0]
        assert_scores(result.prompt_logprobs, prompt[1:], expected_logprobs(prompt)[:-1], num_top)
        assert len(result.token_ids) == max_tokens
        assert result.finish_reason == "length"


@pytest.mark.parametrize("start", [1, 2, 8, 9, 16, 17, 29, 30, 31])
def test_prompt_from_a_position_on_with_a_cached_prefix(fresh, prompts_of, run, request_of, expected_logprobs, start):
    """Only what comes before the first scored position may be taken from the cache."""
    (prompt,) = prompts_of(4, [30])
    engine = fresh()
    run(engine, request_of("warm", prompt, max_tokens=1))
    result = run(engine, request_of("a", prompt, max_tokens=0, prompt_logprobs=2, prompt_logprobs_start=start))["a", 0]
    assert result.num_cached_tokens == min(29, start - 1) // BLOCK_SIZE * BLOCK_SIZE
    assert_scores(result.prompt_logprobs, prompt[start:], expected_logprobs(prompt)[start - 1 : -1], 2)


def test_a_prompt_longer_than_what_is_scored_at_once(
    checkpoint, load_engine, prompts_of, run, request_of, hugging_face_logits
):
    folder, model = checkpoint(n_positions=512)
    engine = load_engine(folder, max_num_batched_tokens=400)
    (prompt,) = prompts_of(5, [390])
    result = run(engine, request_of("a", prompt, max_tokens=1, prompt_logprobs=0))["a", 0]
    rows = hugging_face_logits(model, prompt).log_softmax(-1)[:-1]
    assert_scores(result.prompt_logprobs, prompt[1:], rows, 0)


def test_scored_requests_fill_the_cache_for_others(fresh, prompts_of, run, request_of):
    (prompt,) = prompts_of(6, [30])
    engine = fresh()
    scored = run(engine, request_of("a", prompt, max_tokens=5, prompt_logprobs=0))["a", 0]
    plain = run(engine, request_of("b", prompt, max_tokens=5))["b", 0]
    assert plain.num_cached_tokens == 24
    assert plain.token_ids == scored.token_ids


def test_choices_are_scored_each(fresh, prompts_of, run, request_of, expected_logprobs):
    (prompt,) = prompts_of(7, [20])
    options = {"temperature": 1.0, "max_tokens": 6, "logprobs": 1, "prompt_logprobs": 0, "ignore_eos": True}
    results = run(fresh(), request_of("a", prompt, n=3, **options))
    for choice in range(3):
        result = results["a", choice]
        rows = expected_logprobs(prompt + result.token_ids)
        assert_scores(result.prompt_logprobs, prompt[1:], rows[: len(prompt) - 1], 0)
        assert_scores(result.logprobs, result.token_ids, rows[len(prompt) - 1 : -1], 1)


def test_hopeless_tokens_stay_finite(checkpoint, load_engine, run, request_of):
    """A head with a huge spread: nothing is sent below -9999, which stands for -inf."""
    folder, _ = checkpoint(initializer_range=400.0)
    options = {"max_tokens": 0, "prompt_logprobs": 211}
    result = run(load_engine(folder), request_of("a", list(range(20)), **options))["a", 0]
    top = [value for logprob in result.prompt_logprobs for _, value in logprob.top]
    chosen = [logprob.logprob for logprob in result.prompt_logprobs]
    assert (len(top), len(chosen)) == (19 * 211, 19)
    for values in (top, chosen):
        assert min(values) == -9999.0
        assert any(-9999.0 < value < -10.0 for value in values)
