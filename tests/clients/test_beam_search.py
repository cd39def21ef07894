"""`num_beams` over HTTP: Hugging Face's texts, and a clear word where it can't be."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from zeroshot.api import envelopes
from zeroshot.errors import InvalidRequest

PROMPT = [464, 2068, 7586, 21831]


def hugging_face(checkpoint: Any, n: int, max_tokens: int, **options: Any) -> list[list[int]]:
    with torch.inference_mode():
        rows = checkpoint.model.generate(
            torch.tensor([PROMPT]), max_new_tokens=max_tokens, do_sample=False, num_return_sequences=n, **options
        )
    return [row[len(PROMPT) :] for row in rows.tolist()]


def test_the_texts_of_hugging_face(server: Any, gpt2_checkpoint: Any) -> None:
    options = {"num_beams": 4, "length_penalty": 0.5, "early_stopping": True}
    answer = server.generate(prompt=PROMPT, max_tokens=12, n=3, return_token_ids=True, **options)
    expected = hugging_face(gpt2_checkpoint, 3, 12, **options)
    assert [choice["token_ids"] for choice in answer["choices"]] == [row[:12] for row in expected]
    scores = [choice["beam_score"] for choice in answer["choices"]]
    assert scores == sorted(scores, reverse=True)


def test_vllms_name_for_it(server: Any, gpt2_checkpoint: Any) -> None:
    body = {"prompt": PROMPT, "max_tokens": 8, "n": 3, "use_beam_search": True, "return_token_ids": True}
    choices = server.http.post("/v1/completions", json=body).json()["choices"]
    assert [choice["token_ids"] for choice in choices] == hugging_face(gpt2_checkpoint, 3, 8, num_beams=3)


def test_many_prompts_and_many_searches_at_once(server: Any) -> None:
    bodies = [{"prompt": [f"It was {i}", f"He is {i}"], "max_tokens": 6, "num_beams": 2 + i % 5} for i in range(10)]

    def texts(body: dict[str, Any]) -> list[str]:
        return [choice["text"] for choice in server.generate(**body)["choices"]]

    alone = [texts(body) for body in bodies]
    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(texts, bodies)) == alone


@pytest.mark.parametrize(
    ("wrong", "status", "field"),
    [
        ({"num_beams": 0}, 422, "num_beams"),
        ({"num_beams": 65}, 422, "num_beams"),
        ({"n": 5}, 400, "n"),
        ({"temperature": 1.0}, 400, "temperature"),
        ({"seed": 1}, 400, "seed"),
        ({"logprobs": 1}, 400, "logprobs"),
        ({"stream": True}, 400, "stream"),
        ({"stop": ["a"]}, 400, "stop"),
        ({"structured_outputs": {"regex": "a"}}, 400, "structured_outputs"),
        ({"early_stopping": 1}, 422, "early_stopping"),
        ({"num_beams": 1, "length_penalty": 1.0}, 400, "length_penalty"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(server: Any, wrong: dict[str, Any], status: int, field: str) -> None:
    response = server.http.post("/generate", json={"prompt": "a", "max_tokens": 3, "num_beams": 4} | wrong)
    assert (response.status_code, response.json()["error"]["field"]) == (status, field)


def test_what_the_engine_refuses_has_each_surfaces_name_for_it() -> None:
    refused = InvalidRequest("64 beams of 900 tokens: there is room for 8.", field="num_beams")
    assert envelopes.own(refused)[1]["error"]["field"] == "num_beams"
    assert envelopes.openai(refused)[1]["error"]["param"] == "n"


def test_leaving_a_search(server: Any) -> None:
    body = {"prompt": "On and on", "max_tokens": 900, "num_beams": 16, "ignore_eos": True}
    with pytest.raises(Exception, match="timed out"):
        server.http.post("/generate", json=body, timeout=0.3)
    server.wait_until_idle()
