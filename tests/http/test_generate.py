"""`POST /generate` over a real socket, against Hugging Face on the same checkpoint."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

PROMPT = "It was a dark night, and"


def stream(server: Any, **body: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """(events, raw data lines) of a streamed request."""
    with server.http.stream("POST", "/generate", json=body | {"stream": True}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    return [json.loads(line) for line in lines if line != "[DONE]"], lines


def streamed_texts(events: list[dict[str, Any]]) -> dict[int, str]:
    texts: dict[int, str] = {}
    for event in events:
        for choice in event["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return texts


def hugging_face_greedy(checkpoint: Any, token_ids: list[int], max_tokens: int) -> list[int]:
    with torch.inference_mode():
        output = checkpoint.model.generate(torch.tensor([token_ids]), max_new_tokens=max_tokens, do_sample=False)
    return output[0, len(token_ids) :].tolist()


def test_greedy_tokens_equal_hugging_face(server: Any, gpt2_checkpoint: Any) -> None:
    token_ids = [464, 2068, 7586, 21831]
    answer = server.generate(prompt=token_ids, max_tokens=20, temperature=0, ignore_eos=True, return_token_ids=True)
    expected = hugging_face_greedy(gpt2_checkpoint, token_ids, 20)
    assert answer["choices"][0]["token_ids"][: len(expected)] == expected
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["prompt_tokens"] == 4
    assert answer["usage"]["completion_tokens"] == 20
    assert answer["usage"]["total_tokens"] == 24


def test_text_and_token_ids_are_the_same_prompt(server: Any) -> None:
    from_text = server.generate(prompt="hello world", max_tokens=8, temperature=0)
    from_ids = server.generate(prompt=[31373, 995], max_tokens=8, temperature=0)
    assert from_text["choices"][0]["text"] == from_ids["choices"][0]["text"]


def test_many_prompts_with_many_choices_are_numbered_in_order(server: Any) -> None:
    together = server.generate(prompt=["one", "two"], n=2, max_tokens=6, seed=7)
    assert [choice["index"] for choice in together["choices"]] == [0, 1, 2, 3]
    alone = server.generate(prompt="two", n=2, max_tokens=6, seed=7)
    assert [choice["text"] for choice in together["choices"][2:]] == [choice["text"] for choice in alone["choices"]]
    assert together["choices"][0]["text"] != together["choices"][1]["text"]


def test_a_seed_makes_the_answer_repeatable_and_is_reported(server: Any) -> None:
    first = server.generate(prompt=PROMPT, max_tokens=12)
    again = server.generate(prompt=PROMPT, max_tokens=12, seed=first["seed"])
    other = server.generate(prompt=PROMPT, max_tokens=12, seed=first["seed"] ^ 1)
    assert again["choices"] == first["choices"]
    assert other["choices"] != first["choices"]


def test_a_seed_that_is_reported_is_one_that_javascript_can_send_again(server: Any) -> None:
    own = server.generate(prompt=PROMPT, max_tokens=1)["seed"]
    task = server.http.post("/tasks/complete", json={"text": PROMPT, "max_tokens": 1, "explain": True}).json()
    parameters = {"max_new_tokens": 1, "do_sample": True, "details": True}
    tgi = server.http.post("/generate", json={"inputs": PROMPT, "parameters": parameters}).json()
    for seed in (own, task["explain"]["seed"], tgi["details"]["seed"]):
        assert seed < 2**53


@pytest.mark.parametrize("max_tokens", range(1, 12))
def test_a_stream_says_the_same_as_a_plain_answer(server: Any, max_tokens: int) -> None:
    body = {"prompt": PROMPT, "max_tokens": max_tokens, "seed": 11, "n": 2}
    plain = server.generate(**body)
    events, lines = stream(server, **body)
    assert streamed_texts(events) == {choice["index"]: choice["text"] for choice in plain["choices"]}
    assert lines[-1] == "[DONE]"
    assert events[-1]["usage"] == plain["usage"] | {"cached_tokens": events[-1]["usage"]["cached_tokens"]}
    ends = [choice["finish_reason"] for event in events for choice in event["choices"] if choice["finish_reason"]]
    assert ends == ["length", "length"]


def test_a_stop_string_ends_the_text_before_it(server: Any) -> None:
    whole = server.generate(prompt=PROMPT, max_tokens=30, temperature=0)["choices"][0]["text"]
    stop = whole[len(whole) // 2 : len(whole) // 2 + 5]
    body = {"prompt": PROMPT, "max_tokens": 30, "temperature": 0, "stop": ["never this", stop]}
    choice = server.generate(**body)["choices"][0]
    assert choice["text"] == whole[: whole.index(stop)]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)
    events, _ = stream(server, **body)
    assert streamed_texts(events)[0] == choice["text"]
    server.wait_until_idle()


def test_logprobs_are_the_models_own(server: Any, gpt2_checkpoint: Any) -> None:
    token_ids = [464, 2068]
    answer = server.generate(prompt=token_ids, max_tokens=3, temperature=0.7, seed=3, logprobs=2, return_token_ids=True)
    choice = answer["choices"][0]
    with torch.inference_mode():
        logits = gpt2_checkpoint.model(torch.tensor([token_ids + choice["token_ids"]])).logits[0]
    expected = logits.log_softmax(-1)
    for offset, logprob in enumerate(choice["logprobs"]):
        row = expected[len(token_ids) + offset - 1]
        assert logprob["logprob"] == pytest.approx(float(row[logprob["token_id"]]), abs=1e-4)
        assert [item["token_id"] for item in logprob["top"]] == row.topk(2).indices.tolist()


def test_concurrent_requests_each_get_their_own_answer(server: Any) -> None:
    bodies = [
        {
            "prompt": f"Number {i}",
            "max_tokens": 5 + i % 7,
            "seed": i,
            "temperature": 1.0 if i % 2 else 0.0,
            "n": 1 + i % 2,
        }
        for i in range(40)
    ]
    alone = [server.generate(**body)["choices"] for body in bodies]
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda body: server.generate(**body)["choices"], bodies))
    assert together == alone
    server.wait_until_idle()


def test_a_repeated_prompt_is_taken_from_the_cache(server: Any) -> None:
    prompt = "A prefix that is long enough to fill a few blocks of the cache, told once and then told again. " * 4
    first = server.generate(prompt=prompt, max_tokens=4, temperature=0)
    second = server.generate(prompt=prompt, max_tokens=4, temperature=0)
    assert first["usage"]["cached_tokens"] == 0
    assert second["usage"]["cached_tokens"] >= second["usage"]["prompt_tokens"] - 17
    assert second["choices"] == first["choices"]


def test_default_max_tokens_is_what_the_context_has_room_for(server: Any) -> None:
    answer = server.generate(prompt=[10] * 1000, temperature=0, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 24
