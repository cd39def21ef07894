"""`POST /v1/completions`, field by field, over plain HTTP."""

import json
from typing import Any

import pytest
import torch

PROMPT = "It was a dark night, and"


def complete(server: Any, **body: Any) -> dict[str, Any]:
    response = server.http.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def stream(server: Any, **body: Any) -> list[dict[str, Any]]:
    with server.http.stream("POST", "/v1/completions", json=body | {"stream": True}) as response:
        assert response.status_code == 200
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def joined(chunks: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The choices that a stream's pieces add up to."""
    choices: dict[int, dict[str, Any]] = {}
    for piece in (choice for chunk in chunks for choice in chunk["choices"]):
        whole = choices.setdefault(piece["index"], {"index": piece["index"], "text": "", "logprobs": None})
        whole["text"] += piece["text"]
        if piece["logprobs"] is not None:
            lists = whole["logprobs"] or {name: [] for name in piece["logprobs"]}
            whole["logprobs"] = {name: lists[name] + piece["logprobs"][name] for name in lists}
        for name in ("token_ids", "prompt_token_ids"):
            if name in piece:
                whole[name] = whole.get(name, []) + piece[name]
        whole |= {name: piece[name] for name in ("finish_reason", "stop_reason")}
    return choices


def logprobs_of(checkpoint: Any, token_ids: list[int]) -> torch.Tensor:
    """[num_tokens, vocab_size], Hugging Face's."""
    with torch.inference_mode():
        return checkpoint.model(torch.tensor([token_ids])).logits[0].log_softmax(-1)


def test_the_answer_has_openais_shape(server: Any, model_name: str) -> None:
    answer = complete(server, model=model_name, prompt=PROMPT, max_tokens=4, temperature=0)
    assert answer["id"].startswith("cmpl-")
    assert answer["object"] == "text_completion"
    assert answer["model"] == model_name
    assert answer["created"] > 1_700_000_000
    assert answer["system_fingerprint"]
    assert answer["choices"][0].keys() == {"index", "text", "logprobs", "finish_reason", "stop_reason"}
    usage = answer["usage"]
    assert usage["prompt_tokens_details"].keys() == {"cached_tokens"}
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (7, 4, 11)


def test_max_tokens_is_16_unless_said_otherwise(server: Any) -> None:
    assert complete(server, prompt=PROMPT, ignore_eos=True)["usage"]["completion_tokens"] == 16
    assert complete(server, prompt=PROMPT, max_tokens=None, ignore_eos=True)["usage"]["completion_tokens"] == 16
    almost_full = complete(server, prompt=[10] * 1020, ignore_eos=True)
    assert almost_full["usage"]["completion_tokens"] == 4


def test_explicit_nulls_are_defaults(server: Any) -> None:
    sampling = ["temperature", "top_p", "top_k", "min_p", "stop", "ignore_eos", "min_tokens", "logit_bias", "n"]
    penalties = ["frequency_penalty", "presence_penalty"]
    rest = ["best_of", "echo", "logprobs", "max_tokens", "stream", "stream_options", "suffix", "user", "model"]
    refused = ["structured_outputs", "response_format", "prompt_embeds"]
    names = sampling + penalties + rest + refused
    plain = complete(server, prompt=PROMPT, seed=3)
    nulls = complete(server, prompt=PROMPT, seed=3, **dict.fromkeys(names))
    assert nulls["choices"] == plain["choices"]


@pytest.mark.parametrize("prompt", [PROMPT, [PROMPT, "Two"], [1026, 373], [[1026, 373], [40]]], ids=str)
def test_four_kinds_of_prompt(server: Any, prompt: Any) -> None:
    answer = complete(server, prompt=prompt, max_tokens=3, n=2, seed=5)
    is_many = isinstance(prompt, list) and not isinstance(prompt[0], int)
    rows = prompt if is_many else [prompt]
    assert [choice["index"] for choice in answer["choices"]] == list(range(2 * len(rows)))
    alone = complete(server, prompt=rows[-1], max_tokens=3, n=2, seed=5)
    texts = [choice["text"] for choice in answer["choices"]]
    assert texts[-2:] == [choice["text"] for choice in alone["choices"]]


def test_the_same_prompt_twice_gets_two_texts_unless_a_seed_says_otherwise(server: Any) -> None:
    bodies = [{"prompt": [PROMPT] * 4, "max_tokens": 8}, {"prompt": [[1026, 373]] * 4, "max_tokens": 8, "stream": True}]
    assert len({choice["text"] for choice in complete(server, **bodies[0])["choices"]}) == 4
    assert len({choice["text"] for choice in joined(stream(server, **bodies[1])).values()}) == 4
    assert len({choice["text"] for choice in complete(server, **bodies[0], seed=5)["choices"]}) == 1


@pytest.mark.parametrize("max_tokens", [0, 1, 5])
@pytest.mark.parametrize("prompt", ["Grüße aus 東京 👩‍👩‍👧<|endoftext|>again", [464], [50256, 47249, 240]], ids=str)
def test_echoed_logprobs_are_hugging_faces(server: Any, gpt2_checkpoint: Any, prompt: Any, max_tokens: int) -> None:
    body = {"prompt": prompt, "echo": True, "logprobs": 2, "max_tokens": max_tokens, "ignore_eos": True, "seed": 1}
    choice = complete(server, return_token_ids=True, **body)["choices"][0]
    token_ids = choice["prompt_token_ids"] + choice["token_ids"]
    logprobs = choice["logprobs"]
    assert {len(values) for values in logprobs.values()} == {len(token_ids)}
    assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
    expected = logprobs_of(gpt2_checkpoint, token_ids)
    for position in range(1, len(token_ids)):
        row = expected[position - 1]
        value = logprobs["token_logprobs"][position]
        top = logprobs["top_logprobs"][position]
        assert value == pytest.approx(float(row[token_ids[position]]), abs=1e-4)
        assert top[logprobs["tokens"][position]] == value
        assert sorted(top.values())[-2:] == pytest.approx(sorted(row.topk(2).values.tolist()), abs=1e-4)
    if isinstance(prompt, str):
        assert choice["text"].startswith(prompt)
    assert joined(stream(server, return_token_ids=True, **body)) == {0: choice}


def test_text_offsets_point_into_the_text(server: Any) -> None:
    prompt = "Grüße aus 東京 👩‍👩‍👧 and"
    choice = complete(server, prompt=prompt, echo=True, logprobs=0, max_tokens=12, seed=2)["choices"][0]
    logprobs, text = choice["logprobs"], choice["text"]
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        if not token.startswith("bytes:") and token != "<|endoftext|>":
            assert text[offset : offset + len(token)] == token
    assert logprobs["text_offset"] == sorted(logprobs["text_offset"])


def test_a_greedy_tokens_logprob_is_the_best_to_the_last_bit(server: Any) -> None:
    body = {"prompt": [[i, i + 1] for i in range(40)], "temperature": 0, "max_tokens": 6, "logprobs": 1}
    for choice in complete(server, **body)["choices"]:
        logprobs = choice["logprobs"]
        for value, top in zip(logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
            assert value == max(top.values())


def test_partial_characters_have_names_that_differ(server: Any) -> None:
    prompt = "東京👩‍👩‍👧"
    choice = complete(server, prompt=prompt, echo=True, logprobs=20, max_tokens=0)["choices"][0]
    partial = [token for token in choice["logprobs"]["tokens"] if token.startswith("bytes:")]
    assert partial
    assert "\ufffd" not in "".join(choice["logprobs"]["tokens"])
    assert all(len(top) >= 20 for top in choice["logprobs"]["top_logprobs"][1:])


def test_tokens_as_ids(server: Any) -> None:
    body = {"prompt": PROMPT, "logprobs": 1, "max_tokens": 3, "return_tokens_as_token_ids": True}
    choice = complete(server, return_token_ids=True, **body)["choices"][0]
    assert choice["logprobs"]["tokens"] == [f"token_id:{token_id}" for token_id in choice["token_ids"]]


def test_best_of_returns_the_most_probable(server: Any) -> None:
    body = {"prompt": PROMPT, "max_tokens": 6, "seed": 9, "ignore_eos": True}
    everything = complete(server, n=5, logprobs=0, **body)["choices"]
    means = {choice["text"]: sum(choice["logprobs"]["token_logprobs"]) / 6 for choice in everything}
    ranked = sorted(means, key=lambda text: means[text], reverse=True)
    best = complete(server, n=2, best_of=5, **body)
    assert [choice["text"] for choice in best["choices"]] == ranked[:2]
    assert [choice["index"] for choice in best["choices"]] == [0, 1]
    assert best["choices"][0]["logprobs"] is None
    assert best["usage"]["completion_tokens"] == 30


def test_truncation_keeps_the_prompts_end(server: Any) -> None:
    token_ids = list(range(100, 2100))
    cut = complete(server, prompt=token_ids, truncate_prompt_tokens=5, max_tokens=4, temperature=0)
    same = complete(server, prompt=token_ids[-5:], max_tokens=4, temperature=0)
    assert cut["choices"] == same["choices"]
    fitted = complete(server, prompt=token_ids, truncate_prompt_tokens=-1, max_tokens=4, ignore_eos=True)
    assert (fitted["usage"]["prompt_tokens"], fitted["usage"]["total_tokens"]) == (1020, 1024)


def test_stop_strings_tokens_and_minimum(server: Any) -> None:
    body = {"prompt": PROMPT, "max_tokens": 20, "temperature": 0, "ignore_eos": True}
    whole = complete(server, return_token_ids=True, **body)["choices"][0]
    stop = whole["text"][len(whole["text"]) // 2 :][:3]
    cut = complete(server, stop=stop, **body)["choices"][0]
    before = whole["text"][: whole["text"].index(stop)]
    assert (cut["text"], cut["finish_reason"], cut["stop_reason"]) == (before, "stop", stop)
    kept = {"include_stop_str_in_output": True, "stop": [stop, "never this"]} | body
    assert complete(server, **kept)["choices"][0]["text"] == before + stop
    assert joined(stream(server, **kept))[0]["text"] == before + stop
    stop_id = whole["token_ids"][4]
    by_id = complete(server, stop_token_ids=[stop_id], return_token_ids=True, **body)["choices"][0]
    assert by_id["token_ids"] == whole["token_ids"][: whole["token_ids"].index(stop_id) + 1]
    later = complete(server, stop_token_ids=[stop_id], min_tokens=9, **body)
    assert later["usage"]["completion_tokens"] >= 9


def test_a_stop_is_found_wherever_it_begins(server: Any) -> None:
    """Every three-character piece of the text, so stops inside a token, across tokens and after emoji bytes."""
    body = {"prompt": PROMPT, "max_tokens": 24, "temperature": 0, "ignore_eos": True}
    text = complete(server, **body)["choices"][0]["text"]
    for start in range(len(text) - 3):
        stop = text[start : start + 3]
        plain = complete(server, stop=stop, **body)["choices"][0]
        assert plain["text"] == text[: text.index(stop)]
        assert joined(stream(server, stop=stop, **body))[0]["text"] == plain["text"]


@pytest.mark.parametrize("max_tokens", range(1, 25))
def test_a_stream_is_the_same_text_cut_at_any_length(server: Any, max_tokens: int) -> None:
    """A random model writes broken UTF-8 most of the time; logit bias makes it write emoji and CJK as well."""
    bias = {
        str(token_id): 30 for token_id in server.http.post("/tokenize", json={"prompt": "👩東京é"}).json()["tokens"]
    }
    for more in ({}, {"logit_bias": bias, "temperature": 3.0}):
        body = {"prompt": "日本", "max_tokens": max_tokens, "seed": max_tokens, "n": 2, "logprobs": 1, "echo": True}
        plain = complete(server, **body, **more)
        chunks = stream(server, stream_options={"include_usage": True}, **body, **more)
        assert joined(chunks) == {choice["index"]: choice for choice in plain["choices"]}
        assert chunks[-1]["choices"] == []
        counts = {name: plain["usage"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
        assert counts.items() <= chunks[-1]["usage"].items()
        assert all(chunk["usage"] is None for chunk in chunks[:-1])


def test_usage_in_a_stream(server: Any) -> None:
    body = {"prompt": PROMPT, "max_tokens": 4, "ignore_eos": True}
    assert all("usage" not in chunk for chunk in stream(server, **body))
    options = {"include_usage": True, "continuous_usage_stats": True}
    counts = [chunk["usage"]["completion_tokens"] for chunk in stream(server, stream_options=options, **body)]
    assert counts == sorted(counts)
    assert counts[-1] == 4


def test_negative_seeds_and_top_k_off(server: Any) -> None:
    body = {"prompt": PROMPT, "max_tokens": 5, "seed": -1}
    assert complete(server, top_k=-1, **body)["choices"] == complete(server, **body)["choices"]
    assert complete(server, **(body | {"seed": 2**63 - 1}))["choices"] == complete(server, **body)["choices"]


def test_cached_tokens_are_told(server: Any) -> None:
    prompt = "A prefix that is long enough to fill a few blocks of the cache, for once and for all. " * 3
    complete(server, prompt=prompt, max_tokens=1)
    assert complete(server, prompt=prompt, max_tokens=1)["usage"]["prompt_tokens_details"]["cached_tokens"] >= 32


def test_what_is_unknown_is_named(server: Any) -> None:
    response = server.http.post(
        "/v1/completions", json={"prompt": "a", "max_tokens": 1, "max_token": 5, "user": "u", "store": True}
    )
    assert response.status_code == 200
    assert response.headers["x-ignored-fields"] == "max_token"


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer x", "nonsense"])
def test_any_key_will_do(server: Any, authorization: str) -> None:
    headers = {"Authorization": authorization}
    response = server.http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}, headers=headers)
    assert response.status_code == 200


def test_models(server: Any, model_name: str) -> None:
    listed = server.http.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == [model_name]
    assert server.http.get(f"/v1/models/{model_name}").json() == listed["data"][0]
