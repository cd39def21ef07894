"""Answers are the same whether tokens come one by one or several at once: with speculative decoding and without."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.server import Server, run_server

REPEATING = {"repetition_penalty": 0.5, "seed": 4}
"""Any model repeats itself with that, so that guesses are right and several tokens come at once."""
ACCEPTED = "vllm:spec_decode_num_accepted_tokens_total"
BODIES = [
    ("/generate", {"prompt": "one two", "max_tokens": 40, **REPEATING}),
    ("/generate", {"prompt": "one two", "max_tokens": 40, "logprobs": 1, **REPEATING}),
    (
        "/generate",
        {"prompt": "one two", "max_tokens": 40, "min_tokens": 12, "stop": ["STOP"], "logprobs": 0, **REPEATING},
    ),
    ("/v1/completions", {"prompt": "one two", "max_tokens": 40, "logprobs": 1, **REPEATING}),
    (
        "/v1/completions",
        {"prompt": "one two", "max_tokens": 40, "min_tokens": 9, "stop": "STOP", **REPEATING},
    ),
    ("/", {"inputs": "one two", "parameters": {"max_new_tokens": 40, "details": True, **REPEATING}}),
]


@pytest.fixture(scope="module")
def guessing(gpt2_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("guessing")
    with run_server(gpt2_checkpoint.folder, folder, ZEROSHOT_SPECULATIVE_NGRAM="1") as running:
        running.wait_until_warm()
        yield running


def post(server: Server, path: str, body: dict[str, Any], *, stream: bool) -> Any:
    response = server.http.post(path, json=body | {"stream": stream})
    assert response.status_code == 200, response.text
    if not stream:
        return response.json()
    lines = [line[len("data:") :].strip() for line in response.text.split("\n") if line.startswith("data:")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def without_identity(value: Any) -> Any:
    """Less what differs between any two requests."""
    if isinstance(value, list):
        return [without_identity(item) for item in value]
    if isinstance(value, dict):
        unlike = ("id", "created", "model", "seed", "cached_tokens", "system_fingerprint")
        return {name: without_identity(item) for name, item in value.items() if name not in unlike}
    return value


def num_accepted(server: Server) -> float:
    return next(value for (name, *_), value in server.metrics().items() if name == ACCEPTED)


def joined(events: list[dict[str, Any]], name: str) -> str:
    return "".join(piece[name] for event in events for piece in event.get("choices", [event]) if piece.get(name))


@pytest.mark.parametrize(("path", "body"), BODIES, ids=lambda value: value if isinstance(value, str) else "")
def test_answers_are_those_without(server: Server, guessing: Server, path: str, body: dict[str, Any]) -> None:
    text = json.dumps(body)
    if "STOP" in text:
        # What the model says over and over, so that it stands both before and after `min_tokens`.
        said = server.generate(prompt="one two", max_tokens=40, **REPEATING)["choices"][0]["text"]
        body = json.loads(text.replace("STOP", json.dumps(said[-4:])[1:-1]))
    before = num_accepted(guessing)
    expected, found = (without_identity(post(one, path, body, stream=False)) for one in (server, guessing))
    assert found == expected
    expected, found = (without_identity(post(one, path, body, stream=True)) for one in (server, guessing))
    assert joined(found, "text") == joined(expected, "text")
    assert found[-1] == expected[-1], "with the usage, or the whole text"
    guessing.wait_until(lambda _: num_accepted(guessing) > before)


def test_each_token_is_an_event_to_tgis_clients(server: Server, guessing: Server) -> None:
    """Those of a prompt that takes several steps, too: its first ones bring no token."""
    body = {"inputs": "word " * 600, "parameters": {"max_new_tokens": 30, "top_n_tokens": 1, **REPEATING}}
    expected, found = (without_identity(post(one, "/", body, stream=True)) for one in (server, guessing))
    assert [event["index"] for event in found] == list(range(1, 31))
    assert found == expected


def test_a_stop_string_counts_from_the_token_after_min_tokens_on(server: Server) -> None:
    tokens = server.generate(prompt="one two", max_tokens=9, temperature=0, logprobs=0)["choices"][0]["logprobs"]
    fifth = tokens[4]["token"]
    body = {"prompt": "one two", "temperature": 0, "min_tokens": 5, "stop": [fifth]}
    (at_the_end,) = server.generate(**body, max_tokens=5)["choices"]
    assert at_the_end["finish_reason"] == "length"
    assert at_the_end["text"].endswith(fifth)


def test_what_choices_share_is_not_what_earlier_requests_left(server: Server) -> None:
    prompt = "A prompt that nobody has sent before, of more than sixteen tokens, so that choices share a block of it."
    body = {"prompt": prompt, "n": 3, "max_tokens": 3, "seed": 1}
    assert server.generate(**body)["usage"]["cached_tokens"] == 0
    assert server.generate(**body)["usage"]["cached_tokens"] >= 16


def test_text_offsets_leave_out_what_the_text_does(server: Server) -> None:
    """With `ignore_eos` an end of text is a token of the completion, and has no characters in it."""
    body = {"prompt": "one", "max_tokens": 4, "temperature": 0, "ignore_eos": True, "logprobs": 0}
    body["logit_bias"] = {"50256": 100}
    response = server.http.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    assert choice["text"] == ""
    assert choice["logprobs"]["tokens"] == ["<|endoftext|>"] * 4
    assert choice["logprobs"]["text_offset"] == [0, 0, 0, 0]
