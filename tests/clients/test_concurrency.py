"""A hundred requests of all kinds at once: each gets what it gets alone."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

GUIDES = [
    {"regex": "[A-Z][a-z]{2,9}( [a-z]{1,9})*\\."},
    {"json": {"type": "array", "items": {"enum": ["night", "fox", "日本"]}, "maxItems": 4}},
]
WORDS = "the dark night and a fox went over 東京 quickly 👩‍👩‍👧 to see Grüße again".split()  # noqa: SIM905


def body_of(number: int) -> dict[str, Any]:
    rng = random.Random(number)
    prompt = " ".join(rng.choices(WORDS, k=rng.randint(1, 60)))
    if number % 9 == 0:
        beams = {"use_beam_search": True, "n": rng.randint(2, 5), "length_penalty": rng.choice([0.5, 1.0, 2.0])}
        return {"prompt": prompt, "max_tokens": rng.randint(1, 12), "stream": False} | beams
    body: dict[str, Any] = {"prompt": prompt, "seed": number, "max_tokens": rng.randint(1, 24)}
    body["temperature"] = rng.choice([0.0, 0.7, 1.0])
    body |= rng.choice([{}, {"top_k": 20}, {"top_p": 0.8}, {"frequency_penalty": 1.0, "repetition_penalty": 1.2}])
    body |= rng.choice([{}, {"logprobs": 2}, {"echo": True, "logprobs": 1}, {"n": 2}, {"n": 1, "best_of": 3}])
    body |= rng.choice(
        [{}, {"stop": [" the", "\n"]}, {"ignore_eos": True}, *({"structured_outputs": guide} for guide in GUIDES)]
    )
    body["stream"] = rng.random() < 0.5 and "best_of" not in body
    return body


def choices_of(client: httpx.Client, body: dict[str, Any]) -> dict[int, Any]:
    """Text and log-probabilities of each choice, streamed or not."""
    response = client.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    if body["stream"]:
        lines = [line.removeprefix("data: ") for line in response.text.split("\n") if line]
        assert lines[-1] == "[DONE]"
        answers = [json.loads(line) for line in lines[:-1]]
    else:
        answers = [response.json()]
    texts: dict[int, Any] = {}
    for choice in (choice for answer in answers for choice in answer["choices"]):
        text, logprobs, _ = texts.get(choice["index"], ("", [], None))
        more = choice["logprobs"]["token_logprobs"] if choice["logprobs"] else []
        texts[choice["index"]] = (text + choice["text"], logprobs + more, choice["finish_reason"])
    return texts


def leave(client: httpx.Client, number: int) -> None:
    """Ask for much, and go before it is there: in the middle of a stream, or while waiting for a plain answer."""
    body = {"prompt": "On and on", "max_tokens": 1000, "ignore_eos": True, "seed": number}
    if number % 2:
        with client.stream("POST", "/v1/completions", json=body | {"stream": True}) as response:
            next(response.iter_lines())
    else:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/completions", json=body, timeout=httpx.Timeout(60, read=0.1))


def assert_same(together: dict[int, Any], alone: dict[int, Any]) -> None:
    assert together.keys() == alone.keys()
    for index, (text, logprobs, finish_reason) in together.items():
        assert (text, finish_reason) == (alone[index][0], alone[index][2])
        for value, expected in zip(logprobs, alone[index][1], strict=True):
            # The same model in fp32, with sums of another order in a batch of another shape.
            assert value == expected or abs(value - expected) < 1e-4


def test_a_hundred_mixed_requests_are_each_as_if_alone(server: Any) -> None:
    bodies = [body_of(number) for number in range(90)]
    with httpx.Client(base_url=server.url, timeout=120) as client:
        alone = [choices_of(client, body) for body in bodies]
    limits = httpx.Limits(max_connections=100)
    with httpx.Client(base_url=server.url, timeout=120, limits=limits) as client, ThreadPoolExecutor(100) as pool:
        leaving = [pool.submit(leave, client, number) for number in range(10)]
        together = list(pool.map(lambda body: choices_of(client, body), bodies))
        for future in leaving:
            future.result()
    for found, expected in zip(together, alone, strict=True):
        assert_same(found, expected)
    server.wait_until_idle()
