"""`huggingface_hub.InferenceClient` against TGI's surface, unmodified, and that surface itself."""

import json
from typing import Any

import pytest

huggingface_hub = pytest.importorskip("huggingface_hub")

PROMPT = "It was a dark night, and"


@pytest.fixture(params=["/", "/generate"])
def client(request: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    # In offline mode the client refuses to talk even to this machine.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return huggingface_hub.InferenceClient(model=server.url + request.param)


def test_greedy_unless_told_otherwise(client: Any, server: Any) -> None:
    text = client.text_generation(PROMPT, max_new_tokens=8)
    assert text == server.generate(prompt=PROMPT, max_tokens=8, temperature=0)["choices"][0]["text"]
    assert client.text_generation(PROMPT, max_new_tokens=8, return_full_text=True) == PROMPT + text


def test_sampling_follows_the_seed(client: Any, server: Any) -> None:
    body = {"max_new_tokens": 12, "do_sample": True, "seed": 3, "top_k": 50, "top_p": 0.9, "temperature": 0.8}
    text = client.text_generation(PROMPT, **body)
    assert client.text_generation(PROMPT, **body) == text
    own = {"prompt": PROMPT, "max_tokens": 12, "seed": 3, "top_k": 50, "top_p": 0.9, "temperature": 0.8}
    assert server.generate(**own)["choices"][0]["text"] == text


def test_details(client: Any) -> None:
    output = client.text_generation(
        PROMPT, max_new_tokens=6, details=True, decoder_input_details=True, do_sample=True, best_of=3, top_n_tokens=2
    )
    details = output.details
    assert details.generated_tokens == len(details.tokens) == len(details.top_tokens)
    assert [token.logprob is None for token in details.prefill] == [True] + [False] * 6
    assert "".join(token.text for token in details.tokens if not token.special) == output.generated_text
    assert len(details.best_of_sequences) == 2
    assert details.finish_reason in ("length", "eos_token")
    assert details.seed is not None


def test_details_of_the_input_are_details(server: Any) -> None:
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 2, "decoder_input_details": True}}
    details = server.http.post("/generate", json=body).json()["details"]
    assert (len(details["prefill"]), len(details["tokens"])) == (7, 2)


@pytest.mark.parametrize("max_new_tokens", [1, 2, 3, 11, 30])
def test_a_stream_says_the_same(client: Any, max_new_tokens: int) -> None:
    body = {"max_new_tokens": max_new_tokens, "do_sample": True, "seed": max_new_tokens}
    text = client.text_generation("日本", **body)
    assert "".join(client.text_generation("日本", **body, stream=True)) == text
    events = list(client.text_generation("日本", **body, stream=True, details=True, top_n_tokens=1))
    assert "".join(event.token.text for event in events) == events[-1].generated_text == text
    assert [event.index for event in events] == list(range(1, len(events) + 1))
    assert events[-1].details.generated_tokens == len(events)
    assert events[-1].details.input_length == 4
    assert all(event.details is None and event.generated_text is None for event in events[:-1])


def test_a_stop_sequence_stays_at_the_end(client: Any) -> None:
    whole = client.text_generation(PROMPT, max_new_tokens=20)
    stop = whole[len(whole) // 2 :][:3]
    output = client.text_generation(PROMPT, max_new_tokens=20, stop=[stop], details=True)
    assert output.generated_text == whole[: whole.index(stop) + len(stop)]
    assert output.details.finish_reason == "stop_sequence"
    assert "".join(client.text_generation(PROMPT, max_new_tokens=20, stop=[stop], stream=True)) == output.generated_text


def test_what_a_stop_sequence_may_begin_with_comes_with_its_own_token(server: Any) -> None:
    """Not with the end of text after it, whose event clients leave out of the text: it is special."""
    parameters = {"temperature": 100, "stop": ["ab"], "grammar": {"type": "regex", "value": "a{1,99}"}}
    last_tokens = []
    for seed in range(12):
        body = {"inputs": PROMPT, "parameters": parameters | {"max_new_tokens": 30, "seed": seed}}
        response = server.http.post("/generate_stream", json=body)
        *events, last = [json.loads(line.removeprefix("data: ")) for line in response.text.split("\n") if line]
        assert all(event["token"]["text"] == "a" * len(event["token"]["text"]) != "" for event in events)
        tokens = [event["token"] for event in (*events, last)]
        assert "".join(token["text"] for token in tokens if not token["special"]) == last["generated_text"]
        last_tokens.append(last["token"])
    assert any(token["special"] for token in last_tokens)


@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029", "\x0c", "\x1c", "\r"])
def test_a_stream_survives_whatever_unicode_calls_a_line_end(client: Any, character: str) -> None:
    """This client reads lines with httpx, which ends them where Python's `str.splitlines` does."""
    grammar = {"type": "regex", "value": f"a{character}b{character}{character}c"}
    whole = client.text_generation(PROMPT, max_new_tokens=30, grammar=grammar)
    assert whole.count(character) == 3
    assert "".join(client.text_generation(PROMPT, max_new_tokens=30, grammar=grammar, stream=True)) == whole


def test_truncation_keeps_the_end(client: Any) -> None:
    long = "word " * 2000 + PROMPT
    cut = client.text_generation(long, max_new_tokens=4, truncate=7)
    assert cut == client.text_generation(" " + PROMPT, max_new_tokens=4)
    assert client.text_generation(long, max_new_tokens=4, truncate=7, return_full_text=True) == long + cut


def test_typical_decoding_as_langchain_asks_for_it_by_default(client: Any, server: Any) -> None:
    asked = {"top_k": 10, "top_p": 0.95, "typical_p": 0.95, "temperature": 0.8, "seed": 5}
    text = client.text_generation(PROMPT, max_new_tokens=12, do_sample=False, **asked)
    assert server.generate(prompt=PROMPT, max_tokens=12, **asked)["choices"][0]["text"] == text
    asked |= {"top_k": None, "top_p": None, "typical_p": 0.2}  # hardly ever the likeliest of a flat distribution
    best = client.text_generation(PROMPT, max_new_tokens=12)
    assert client.text_generation(PROMPT, max_new_tokens=12, **asked) not in (text, best)


def test_mistakes_are_validation_errors(client: Any) -> None:
    from huggingface_hub.errors import ValidationError

    for wrong in ({"typical_p": 1.5}, {"watermark": True}, {"best_of": 2}, {"max_new_tokens": 5000}):
        with pytest.raises(ValidationError):
            client.text_generation(PROMPT, **wrong)


def test_the_root_answers_with_a_list_and_generate_with_an_object(server: Any) -> None:
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 3, "seed": None}, "options": {"use_cache": False}}
    answers = [server.http.post(path, json=body).json() for path in ("/", "/generate")]
    assert answers[0] == [answers[1]]
    assert answers[1].keys() == {"generated_text"}


def test_generate_stream_ends_with_the_whole_text(server: Any) -> None:
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 3}}
    response = server.http.post("/generate_stream", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in response.text.split("\n") if line]
    assert events[-1]["generated_text"] == server.http.post("/generate", json=body).json()["generated_text"]


@pytest.mark.parametrize("path", ["/", "/generate", "/generate_stream"])
def test_what_is_ignored_is_named(server: Any, path: str) -> None:
    """As of a body that mixes the two schemas of `/generate`."""
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 2}, "options": {"use_cache": False}}
    assert "x-ignored-fields" not in server.http.post(path, json=body).headers
    mixed = server.http.post(path, json=body | {"prompt": "b", "max_tokens": 5, "stop": None, "a\r\nb": 1})
    assert (mixed.status_code, mixed.headers["x-ignored-fields"]) == (200, "prompt, max_tokens")


def test_the_default_length_is_what_fits(server: Any) -> None:
    body = {"inputs": "a" + " a" * 1020, "parameters": {"details": True}}
    assert server.http.post("/generate", json=body).json()["details"]["generated_tokens"] <= 3


@pytest.mark.parametrize("named", [True, False])
def test_chat(client: Any, server: Any, model_name: str, named: bool) -> None:
    """Without a name the client sends one that stands for whatever is served."""
    chat = huggingface_hub.InferenceClient(base_url=f"{server.url}/v1")
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 6, "temperature": 0.0}
    named_model = {"model": model_name} if named else {}
    answer = chat.chat_completion(**body, **named_model).choices[0].message.content
    chunks = chat.chat_completion(**body, **named_model, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer


def test_info(server: Any, model_name: str) -> None:
    info = server.http.get("/info").json()
    assert (info["model_id"], info["max_total_tokens"], info["max_input_tokens"]) == (model_name, 1024, 1023)


def test_the_own_schema_still_works_beside_it(server: Any) -> None:
    assert server.generate(prompt=PROMPT, max_tokens=2)["choices"]
    refused = server.http.post("/generate", json={"prompt": PROMPT, "parameters": {}})
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "parameters")
    page = server.http.get("/openapi.json").json()
    assert {"GenerateBody", "TGIBody", "CompletionBody"} <= page["components"]["schemas"].keys()
