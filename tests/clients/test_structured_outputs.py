"""Text held to a regular expression or a JSON schema, over every surface: it always fits, and disturbs nobody."""

import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jsonschema
import pytest

openai = pytest.importorskip("openai", reason="openai is not installed: pip install -e '.[clients]'")

PROMPT = "It was a dark night, and"
REGEXES = [
    r"[A-Z][a-z]{2,9} is \d{1,3} years old\.",
    r"(yes|no|perhaps)",
    r"(a+)+b{1,3}",
    r"[^\n]{1,40}",
    r"(?i)hello",
    "[\u3040-\u30ff\u4e00-\u9fff]{1,6}。",
    "👩‍👩‍👧{1,2}|é+x",
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])",
    r"(\+|-)?[0-9]{1,5}(\.[0-9]{1,3})?",
]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z][a-z]{1,11}$"},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["new", "old", "日本"]}, "maxItems": 3},
        "home": {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
    },
    "required": ["name", "age", "tags", "home"],
    "additionalProperties": False,
}
LINKED = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"v": {"enum": [1, 2]}, "next": {"$ref": "#/$defs/node"}},
            "required": ["v"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}


def choices(server: Any, **body: Any) -> list[dict[str, Any]]:
    response = server.http.post("/v1/completions", json={"prompt": PROMPT} | body)
    assert response.status_code == 200, response.text
    return response.json()["choices"]


def streamed(server: Any, **body: Any) -> dict[int, str]:
    response = server.http.post("/v1/completions", json={"prompt": PROMPT, "stream": True} | body)
    lines = [line.removeprefix("data: ") for line in response.text.split("\n") if line]
    assert lines[-1] == "[DONE]"
    texts: dict[int, str] = {}
    for choice in (choice for line in lines[:-1] for choice in json.loads(line)["choices"]):
        texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return texts


@pytest.mark.parametrize("regex", REGEXES)
def test_every_text_matches_the_expression(server: Any, regex: str) -> None:
    body = {"structured_outputs": {"regex": regex}, "n": 8, "seed": 5, "max_tokens": 200}
    plain = choices(server, **body)
    for choice in plain:
        if choice["finish_reason"] == "stop":
            assert re.fullmatch(regex, choice["text"])
    assert sum(choice["finish_reason"] == "stop" for choice in plain) >= 6
    assert streamed(server, **body) == {choice["index"]: choice["text"] for choice in plain}
    greedy = choices(server, structured_outputs={"regex": regex}, temperature=0, max_tokens=200)[0]
    assert greedy["finish_reason"] == "length" or re.fullmatch(regex, greedy["text"])


@pytest.mark.parametrize("schema", [PERSON, LINKED], ids=["person", "linked"])
def test_every_text_fits_the_schema(server: Any, schema: dict[str, Any]) -> None:
    for asked in (
        {"structured_outputs": {"json": schema}},
        {"structured_outputs": {"json": json.dumps(schema)}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}},
    ):
        body = asked | {"n": 6, "seed": 8, "temperature": 1.0}
        plain = choices(server, **body)
        assert streamed(server, **body) == {choice["index"]: choice["text"] for choice in plain}
        for choice in plain:
            assert choice["finish_reason"] == "stop"
            jsonschema.validate(json.loads(choice["text"]), schema)


def test_a_json_object(server: Any) -> None:
    """A random model hardly ever closes what it opens: bias towards the closing brace and quote."""
    bias = {str(token): 100 for token in (92, 1, 25, 11)}  # } " : ,
    for name in ("response_format", "structured_outputs"):
        value = {"type": "json_object"} if name == "response_format" else {"json_object": True}
        text = choices(server, **{name: value}, logit_bias=bias, temperature=0)[0]["text"]
        assert isinstance(json.loads(text), dict)


def test_a_text_ends_as_soon_as_nothing_more_fits(server: Any) -> None:
    choice = choices(server, structured_outputs={"regex": " night"}, max_tokens=3, return_token_ids=True)[0]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == (" night", "stop", None)
    longer = choices(server, structured_outputs={"regex": "a*"}, temperature=0, logit_bias={"50256": 100})[0]
    assert (longer["text"], longer["finish_reason"], longer["stop_reason"]) == ("", "stop", 50256)


def test_log_probabilities_are_the_models_own(server: Any) -> None:
    choice = choices(server, structured_outputs={"regex": "[0-9]{3}"}, logprobs=1, return_token_ids=True, seed=1)[0]
    body = {"prompt": choice["prompt_token_ids"] + choice["token_ids"], "echo": True, "logprobs": 1, "max_tokens": 0}
    whole = choices(server, **body)[0]["logprobs"]["token_logprobs"]
    found = choice["logprobs"]["token_logprobs"]
    assert found == pytest.approx(whole[-len(found) :], abs=1e-4)


def test_forced_text_comes_in_the_tokenizers_own_tokens(server: Any) -> None:
    """As docs/clients.md says. With temperature 100 a random model would choose any others that it could."""
    text = " years old, and he liked the sea."
    token_ids = server.http.post("/tokenize", json={"prompt": text}).json()["tokens"]
    for seed in range(3):
        [choice] = choices(
            server,
            structured_outputs={"regex": re.escape(text)},
            temperature=100,
            seed=seed,
            return_token_ids=True,
        )
        assert choice["token_ids"][: len(token_ids)] == token_ids


def test_stop_strings_end_a_text_before_its_grammar_does(server: Any) -> None:
    choice = choices(server, structured_outputs={"regex": "(ab){20}"}, stop=["ba"], max_tokens=100)[0]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == ("a", "stop", "ba")


def test_a_chat_under_a_grammar_ends_where_the_grammar_says(server: Any) -> None:
    """Not where the transcript's next line would begin."""
    body = {"messages": [{"role": "user", "content": "Hello"}], "structured_outputs": {"regex": "Hi!\nUser: Bye\\."}}
    choice = server.http.post("/v1/chat/completions", json=body).json()["choices"][0]
    assert (choice["message"]["content"], choice["stop_reason"]) == ("Hi!\nUser: Bye.", None)
    stopped = server.http.post("/v1/chat/completions", json=body | {"stop": "\nUser"}).json()["choices"][0]
    assert (stopped["message"]["content"], stopped["stop_reason"]) == ("Hi!", "\nUser")


def test_best_of_and_echo(server: Any) -> None:
    body = {"structured_outputs": {"regex": " [a-z]{3}"}, "best_of": 4, "n": 2, "echo": True, "seed": 3}
    for choice in choices(server, **body):
        assert re.fullmatch(re.escape(PROMPT) + " [a-z]{3}", choice["text"])


def test_the_openai_client(server: Any, model_name: str) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    messages = [{"role": "user", "content": "Who are you?"}]
    schema = {"name": "person", "schema": PERSON, "strict": True}
    response_format = {"type": "json_schema", "json_schema": schema}
    body = {"model": model_name, "messages": messages, "response_format": response_format, "seed": 4}
    plain = client.chat.completions.create(**body)
    jsonschema.validate(json.loads(plain.choices[0].message.content), PERSON)
    chunks = client.chat.completions.create(**body, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == plain.choices[0].message.content
    extra = {"structured_outputs": {"regex": "\\s[0-9]{2}"}}
    answer = client.chat.completions.create(model=model_name, messages=messages, extra_body=extra)
    assert re.fullmatch(r"\s[0-9]{2}", answer.choices[0].message.content)
    extra = {"structured_outputs": {"choice": ["yes", "no"]}}
    answer = client.chat.completions.create(model=model_name, messages=messages, extra_body=extra)
    assert answer.choices[0].message.content in ("yes", "no")


def test_the_surface_of_this_server(server: Any) -> None:
    answer = server.generate(prompt=[PROMPT, "日本"], n=2, seed=1, structured_outputs={"json": PERSON}, logprobs=1)
    assert len(answer["choices"]) == 4
    for choice in answer["choices"]:
        jsonschema.validate(json.loads(choice["text"]), PERSON)
    answer = server.generate(prompt=PROMPT, structured_outputs={"choice": [" a", " b"]})
    assert answer["choices"][0]["text"] in (" a", " b")
    refused = server.http.post("/generate", json={"prompt": "a", "structured_outputs": {"regex": "("}})
    assert (refused.status_code, refused.json()["error"]["field"]) == (400, "structured_outputs.regex")


@pytest.mark.parametrize("path", ["/", "/generate", "/generate_stream"])
def test_tgis_grammars(server: Any, path: str) -> None:
    for grammar in (
        {"type": "json", "value": PERSON},
        {"type": "json", "value": json.dumps(PERSON)},
        {"type": "json_schema", "value": {"name": "x", "schema": PERSON}},
        {"type": "regex", "value": REGEXES[0]},
    ):
        parameters = {"max_new_tokens": 200, "do_sample": True, "seed": 2, "grammar": grammar}
        response = server.http.post(path, json={"inputs": PROMPT, "parameters": parameters})
        assert response.status_code == 200, response.text
        if path == "/generate_stream":
            answer = json.loads(response.text.strip().split("\n")[-1].removeprefix("data:"))
        else:
            answer = response.json()[0] if path == "/" else response.json()
        text = answer["generated_text"]
        if grammar["type"] == "regex":
            assert re.fullmatch(REGEXES[0], text)
        else:
            jsonschema.validate(json.loads(text), PERSON)


def test_neighbours_get_what_they_get_alone(server: Any) -> None:
    bodies = [{"prompt": f"{PROMPT} {i}", "seed": i, "max_tokens": 30} for i in range(12)]
    for i in range(0, 12, 2):
        bodies[i]["structured_outputs"] = {"json": PERSON} if i % 4 else {"regex": REGEXES[i // 2]}
    alone = [choices(server, **body)[0]["text"] for body in bodies]
    with ThreadPoolExecutor(12) as pool:
        assert [c[0]["text"] for c in pool.map(lambda body: choices(server, **body), bodies)] == alone


def test_leaving_in_the_middle(server: Any) -> None:
    tokens_before = server.health()["engine"]["generation_tokens_total"]
    body = {"prompt": PROMPT, "structured_outputs": {"regex": "[a-z ]{1,1000}x"}, "max_tokens": 900, "stream": True}
    with server.http.stream("POST", "/v1/completions", json=body) as response:
        next(response.iter_lines())
    health = server.wait_until_idle()
    assert health["engine"]["generation_tokens_total"] - tokens_before < 900


HOSTILE = [
    {"allOf": [{"type": "string", "pattern": f".*{i}.*"} for i in range(20)]},
    {"allOf": [{"type": "integer", "multipleOf": prime} for prime in (97, 89, 83, 79)]},
]


def test_a_hostile_schema_stalls_nobody(server: Any) -> None:
    """These keep llguidance busy for minutes: they are refused in seconds, and the others don't notice."""
    answers: list[httpx.Response] = []

    def send(schema: dict[str, Any]) -> None:
        body = {"prompt": "a", "structured_outputs": {"json": schema}}
        answers.append(httpx.post(f"{server.url}/v1/completions", json=body, timeout=120))

    threads = [threading.Thread(target=send, args=[schema]) for schema in HOSTILE]
    for thread in threads:
        thread.start()
    served = 0
    while any(thread.is_alive() for thread in threads):
        assert choices(server, max_tokens=2)
        served += 1
        time.sleep(0.05)
    assert [answer.status_code for answer in answers] == [400] * len(HOSTILE)
    assert {answer.json()["error"]["param"] for answer in answers} == {"structured_outputs.json"}
    assert served > 10


def test_a_deadline_counts_while_a_grammar_is_read(server: Any) -> None:
    body = {"prompt": "a", "timeout": 0.01, "structured_outputs": {"regex": "[a-f]{3,7}x?y"}}
    answer = server.http.post("/generate", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout"), answer.text


@pytest.mark.parametrize(
    ("wanted", "num_kept"),
    [({"json": PERSON}, 1024 - 256), ({"choice": ["a b c d", "a"]}, 1024 - 4), (None, 1024 - 16)],
)
def test_a_prompt_is_truncated_to_leave_room_for_what_comes(server: Any, wanted: Any, num_kept: int) -> None:
    body = {"prompt": "word " * 1500, "truncate_prompt_tokens": -1, "structured_outputs": wanted}
    answer = server.http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens"] == num_kept


def test_choices_longer_than_any_text_are_refused_by_name(server: Any) -> None:
    body = {"prompt": "a", "structured_outputs": {"choice": ["x" * 70_000, "y" * 70_000]}}
    answer = server.http.post("/v1/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "structured_outputs"
    assert "140000 characters" in answer.json()["error"]["message"]
