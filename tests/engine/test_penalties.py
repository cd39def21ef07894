"""Penalties and bias in whole generations, against a loop over Hugging Face's logits that does the obvious thing."""

import pytest
import torch


@pytest.fixture(scope="module")
def small(checkpoint):
    return checkpoint()


@pytest.fixture(scope="module")
def engine(small, load_engine):
    return load_engine(small.folder)


@pytest.fixture(scope="module")
def naive_greedy(small, hugging_face_logits):
    """A new forward pass over everything for every token."""

    def generate(prompt, max_tokens, *, bias, repetition, presence, frequency):
        output = []
        for _ in range(max_tokens):
            logits = hugging_face_logits(small.model, prompt + output)[-1].clone()
            for token_id, value in bias.items():
                logits[token_id] += value
            for token_id in {*prompt, *output}:
                logits[token_id] = (
                    logits[token_id] * repetition if logits[token_id] < 0 else logits[token_id] / repetition
                )
            for token_id in set(output):
                logits[token_id] -= presence + frequency * output.count(token_id)
            output.append(int(logits.argmax()))
        return output

    return generate


CASES = [
    {"repetition": 1.5},
    {"repetition": 0.7},
    {"presence": 3.0},
    {"presence": -2.0},
    {"frequency": 0.8},
    {"frequency": -0.5},
    {"bias": {3: 9.0, 17: -9.0, 200: 8.5}},
    {"bias": {3: 6.0, 4: 6.0}, "repetition": 1.3, "presence": 0.5, "frequency": 0.7},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_greedy_tokens(engine, naive_greedy, prompts_of, run, request_of, case):
    options = {"bias": {}, "repetition": 1.0, "presence": 0.0, "frequency": 0.0} | case
    params = {
        "max_tokens": 24,
        "ignore_eos": True,
        "logit_bias": options["bias"],
        "repetition_penalty": options["repetition"],
        "presence_penalty": options["presence"],
        "frequency_penalty": options["frequency"],
    }
    prompts = prompts_of(1, [9, 30, 1])
    plain = [request_of(f"plain{i}", prompt, max_tokens=24, ignore_eos=True) for i, prompt in enumerate(prompts)]
    own = [request_of(str(i), prompt, **params) for i, prompt in enumerate(prompts)]
    results = run(engine, *own, *plain)
    for i, prompt in enumerate(prompts):
        assert results[str(i), 0].token_ids == naive_greedy(prompt, 24, **options)
    changed = [results[str(i), 0].token_ids != results[f"plain{i}", 0].token_ids for i in range(3)]
    assert any(changed), "the case proves nothing"


def test_neighbours_with_and_without_penalties_do_not_mix(engine, prompts_of, run, request_of):
    (prompt,) = prompts_of(2, [14])
    requests = [
        request_of("none", prompt, max_tokens=20, ignore_eos=True),
        request_of("frequency", prompt, max_tokens=20, ignore_eos=True, frequency_penalty=2.0),
        request_of("bias", prompt, max_tokens=20, ignore_eos=True, logit_bias={9: 30.0}),
    ]
    together = run(engine, *requests)
    alone = {request.request_id: run(engine, request)[request.request_id, 0] for request in requests}
    for name, result in alone.items():
        assert together[name, 0].token_ids == result.token_ids
    assert len({tuple(result.token_ids) for result in alone.values()}) == 3
    assert set(alone["bias"].token_ids) == {9}


def test_frequency_penalty_ends_repetition(engine, prompts_of, run, request_of):
    (prompt,) = prompts_of(3, [10])
    result = run(engine, request_of("a", prompt, max_tokens=100, ignore_eos=True, frequency_penalty=100.0))["a", 0]
    assert len(set(result.token_ids)) == 100


def test_a_bias_of_minus_infinity_forbids(engine, prompts_of, run, request_of):
    (prompt,) = prompts_of(4, [10])
    plain = run(engine, request_of("a", prompt, max_tokens=10, ignore_eos=True))["a", 0].token_ids
    forbidden = dict.fromkeys(set(plain), -torch.inf)
    for temperature in (0.0, 1.0):
        options = {"temperature": temperature, "logit_bias": forbidden, "ignore_eos": True}
        result = run(engine, request_of("b", prompt, max_tokens=20, **options))["b", 0]
        assert len(result.token_ids) == 20
        assert not set(result.token_ids) & set(plain)


@pytest.mark.parametrize("filters", [{}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.5}, {"typical_p": 0.5}], ids=str)
@pytest.mark.parametrize(
    "extreme",
    [
        {"repetition_penalty": 1e-40},
        {"repetition_penalty": 1e-40, "presence_penalty": 2.0, "frequency_penalty": 2.0},
        {"repetition_penalty": 1e30},
        {"repetition_penalty": 100.0, "presence_penalty": 2.0, "frequency_penalty": 2.0},
        {"temperature": 1e-300},
        {"temperature": 1e30},
        {"logit_bias": {3: 1e39}},
        {"logit_bias": {3: -1e39}},
        {"top_p": 5e-324},
        {"min_p": 1.0},
    ],
    ids=str,
)
def test_extreme_values_give_tokens_and_leave_neighbours_alone(engine, prompts_of, run, request_of, extreme, filters):
    own, other = prompts_of(5, [12, 7])
    neighbour = request_of("neighbour", other, max_tokens=6, ignore_eos=True)
    extreme = request_of("extreme", own, max_tokens=6, ignore_eos=True, **{"temperature": 1.0} | filters | extreme)
    results = run(engine, extreme, neighbour)
    assert (len(results["extreme", 0].token_ids), results["extreme", 0].finish_reason) == (6, "length")
    assert results["neighbour", 0].token_ids == run(engine, neighbour)["neighbour", 0].token_ids
