"""`structured_outputs.choice` of /v1/completions: the text is one of the choices, by the model's probabilities."""

from collections import Counter
from typing import Any

import pytest

PROMPT = "It was a dark"
CHOICES = [" night", " and stormy evening", ", wet", " 東京"]


def complete(server: Any, **body: Any) -> dict[str, Any]:
    response = server.http.post("/v1/completions", json={"structured_outputs": {"choice": CHOICES}} | body)
    assert response.status_code == 200, response.text
    return response.json()


def scores(server: Any, prompt: str) -> list[float]:
    """Log-probability of each choice after the prompt, by another way."""
    result = []
    num_prompt_tokens = len(server.http.post("/tokenize", json={"prompt": prompt}).json()["tokens"])
    for choice in CHOICES:
        body = {"prompt": prompt + choice, "echo": True, "logprobs": 0, "max_tokens": 0}
        logprobs = server.http.post("/v1/completions", json=body).json()["choices"][0]["logprobs"]
        result.append(sum(logprobs["token_logprobs"][num_prompt_tokens:]))
    return result


def test_greedy_is_the_most_probable_choice(server: Any) -> None:
    for prompt in (PROMPT, "Somewhere"):
        found = scores(server, prompt)
        answer = complete(server, prompt=prompt, temperature=0)
        assert answer["choices"][0]["text"] == CHOICES[found.index(max(found))]
        assert answer["choices"][0]["finish_reason"] == "stop"


def test_logprobs_and_echo(server: Any) -> None:
    answer = complete(server, prompt=PROMPT, temperature=0, logprobs=1, echo=True, return_token_ids=True)
    choice = answer["choices"][0]
    num_tokens = len(choice["token_ids"])
    assert choice["text"].startswith(PROMPT)
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert sum(choice["logprobs"]["token_logprobs"][-num_tokens:]) == pytest.approx(
        max(scores(server, PROMPT)), abs=1e-4
    )
    assert answer["usage"]["completion_tokens"] == num_tokens


def test_drawing_follows_the_seed_and_the_probabilities(server: Any) -> None:
    body = {"prompt": [PROMPT, "Somewhere"], "n": 64, "seed": 1, "temperature": 100.0}
    texts = [choice["text"] for choice in complete(server, **body)["choices"]]
    assert texts == [choice["text"] for choice in complete(server, **body)["choices"]]
    assert len(texts) == 128
    assert Counter(texts).keys() == set(CHOICES)  # at this temperature all are nearly equally likely
    nearly_greedy = complete(server, prompt=PROMPT, n=20, temperature=1e-300)["choices"]
    assert len({choice["text"] for choice in nearly_greedy}) == 1


def test_a_stream_says_the_same(server: Any) -> None:
    body = {"prompt": PROMPT, "n": 3, "seed": 2, "structured_outputs": {"choice": CHOICES}}
    plain = [choice["text"] for choice in complete(server, **body)["choices"]]
    response = server.http.post("/v1/completions", json=body | {"stream": True})
    assert [text in response.text for text in plain] == [True] * 3
    assert response.text.endswith("data: [DONE]\n\n")


def test_only_log_probabilities_that_are_in_the_answer_count(server: Any) -> None:
    many = {"structured_outputs": {"choice": [f" {number}" for number in range(250)]}}
    assert complete(server, prompt=[10] * 600, **many)["usage"]["completion_tokens"] >= 1
    body = {"prompt": [[10] * 5] * 32, "logprobs": 5, "structured_outputs": {"choice": [" yes", " no"]}}
    assert len(complete(server, **body)["choices"]) == 32
    for is_stream in (False, True):
        long = body | {"prompt": PROMPT, "structured_outputs": {"choice": [" a" * 900]}, "n": 128, "stream": is_stream}
        response = server.http.post("/v1/completions", json=long)
        assert (response.status_code, response.json()["error"]["param"]) == (400, "logprobs")


def test_choices_that_do_not_fit_name_the_prompts_field(server: Any) -> None:
    text = " a" * 1000
    choices = {"structured_outputs": {"choice": [" a" * 40]}}
    for path, body, field in (
        ("/v1/completions", {"prompt": text}, "prompt"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": text}]}, "messages"),
    ):
        response = server.http.post(path, json=body | choices)
        assert response.status_code == 400
        error = response.json()["error"]
        assert (error["code"], error["param"]) == ("context_length_exceeded", field)
        assert "max_tokens" not in error["message"]
