"""Bad input gets a 4xx that names the field, and the next request is right."""

import gzip
import json
from typing import Any

import pytest

BAD_BODIES = [
    # body, status, field
    ("", 422, None),
    ("null", 422, None),
    ("[]", 422, None),
    ('"x"', 422, None),
    ("{", 422, None),
    ('{"prompt":"\\ud800"}', 422, "prompt"),
    ('{"prompt":""}', 400, "prompt"),
    ('{"prompt":[]}', 422, "prompt"),
    ('{"prompt":[[]]}', 422, "prompt"),
    ('{"prompt":[-1]}', 422, "prompt"),
    ('{"prompt":[50257]}', 400, "prompt"),
    ('{"prompt":[1.5]}', 422, "prompt"),
    ('{"prompt":[true]}', 422, "prompt"),
    ('{"prompt":["a",1]}', 422, "prompt"),
    ('{"prompt":7}', 422, "prompt"),
    ('{"prompt":null}', 422, "prompt"),
    ('{"prompt":"a","max_tokens":0}', 422, "max_tokens"),
    ('{"prompt":"a","max_tokens":1.5}', 422, "max_tokens"),
    ('{"prompt":"a","max_tokens":9223372036854775808}', 422, "max_tokens"),
    ('{"prompt":"a","max_tokens":1024}', 400, "prompt"),
    ('{"prompt":"a","temperature":-1}', 422, "temperature"),
    ('{"prompt":"a","temperature":NaN}', 422, "temperature"),
    ('{"prompt":"a","temperature":Infinity}', 422, "temperature"),
    ('{"prompt":"a","temperature":1e400}', 422, "temperature"),
    ('{"prompt":"a","temperature":true}', 422, "temperature"),
    ('{"prompt":"a","temperature":"0.5"}', 422, "temperature"),
    ('{"prompt":"a","top_p":0}', 422, "top_p"),
    ('{"prompt":"a","top_p":1.1}', 422, "top_p"),
    ('{"prompt":"a","top_k":-1}', 422, "top_k"),
    ('{"prompt":"a","n":0}', 422, "n"),
    ('{"prompt":"a","n":1000000000}', 422, "n"),
    ('{"prompt":["a","b","c"],"n":128}', 400, "prompt"),
    ('{"prompt":"a","seed":-1}', 422, "seed"),
    ('{"prompt":"a","seed":99999999999999999999999999}', 422, "seed"),
    ('{"prompt":"a","repetition_penalty":0}', 422, "repetition_penalty"),
    ('{"prompt":"a","presence_penalty":1e9}', 422, "presence_penalty"),
    ('{"prompt":"a","logprobs":21}', 422, "logprobs"),
    ('{"prompt":"a","logit_bias":{"abc":1}}', 422, "logit_bias"),
    ('{"prompt":"a","logit_bias":{"-1":1}}', 422, "logit_bias"),
    ('{"prompt":"a","logit_bias":{"50257":1}}', 400, "logit_bias"),
    ('{"prompt":"a","logit_bias":{"5":NaN}}', 422, "logit_bias.5"),
    ('{"prompt":"a","stop":[""]}', 422, "stop.0"),
    ('{"prompt":"a","stop_token_ids":[50257]}', 400, "stop_token_ids"),
    ('{"prompt":"a","min_tokens":65}', 400, "min_tokens"),
    ('{"prompt":"a","stream":1}', 422, "stream"),
    ('{"prompt":"a","max_token":5}', 422, "max_token"),
    ('{"prompt":"a","max-tokens":5}', 422, "max-tokens"),
    ('{"prompt":"a","body":5}', 422, "body"),
]


@pytest.mark.parametrize(("body", "status", "field"), BAD_BODIES)
def test_bad_body(server: Any, body: str, status: int, field: str | None) -> None:
    response = server.http.post("/generate", content=body, headers={"content-type": "application/json"})
    error = json.loads(response.content)["error"]
    assert (response.status_code, error["field"]) == (status, field)
    assert error["message"]
    assert error["code"]
    assert "Traceback" not in response.text


@pytest.mark.parametrize(
    "wrong", [{"stop": ""}, {"stop": ["a" * 257]}, {"structured_outputs": {"choice": [""]}}, {"inputs": ""}], ids=str
)
def test_the_length_of_a_text_is_counted_in_characters(server: Any, wrong: dict[str, Any]) -> None:
    response = server.http.post("/generate", json={"prompt": "a"} | wrong)
    assert response.status_code == 422
    assert " character" in response.text


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        ("/generate", '{"prompt": "a"', "Expecting ',' delimiter, at character 14"),
        ("/tasks/translate", '{"text": "a"', "EOF while parsing an object at line 1 column 12"),
        ("/tasks/translate", '{"text": "\\ud800"}', "unexpected end of hex escape"),
    ],
)
def test_what_is_wrong_with_json_is_said(server: Any, path: str, body: str, why: str) -> None:
    response = server.http.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert why in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [gzip.compress(b'{"prompt":"a"}'), b'{"prompt":"\xe9"}', b"[" * 100_000, b'{"seed":' + b"1" * 5000 + b"}"],
    ids=["gzip", "Latin-1", "nested", "digits"],  # of its own gzip would make one that holds the time
)
@pytest.mark.parametrize("path", ["/generate", "/v1/completions"])
def test_a_body_that_can_not_even_be_read_is_told_why(server: Any, path: str, body: bytes) -> None:
    response = server.http.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert "compressed, not in UTF-8, nested too deep" in response.json()["error"]["message"]


def test_an_unknown_field_is_named(server: Any) -> None:
    for name, shown in (("max-tokens", "'max-tokens'"), ("", "''"), ("a" * 10_000, f"'{'a' * 128}'")):
        response = server.http.post("/generate", json={"prompt": "a", name: 1})
        assert response.json()["error"]["message"] == f"There is no field {shown} here."


def test_the_next_request_is_right(server: Any) -> None:
    before = server.generate(prompt="after all that", max_tokens=5, temperature=0)["choices"]
    for body, _, _ in BAD_BODIES:
        server.http.post("/generate", content=body, headers={"content-type": "application/json"})
    assert server.generate(prompt="after all that", max_tokens=5, temperature=0)["choices"] == before
    server.wait_until_idle()


def test_extremes_that_are_allowed(server: Any) -> None:
    for extreme in (
        {"temperature": 1e-30},
        {"temperature": 100},
        {"top_p": 1e-9},
        {"top_k": 2**31 - 1},
        {"min_p": 1},
        {"typical_p": 1e-9},
        {"repetition_penalty": 1e-30},
        {"logit_bias": {str(i): -100 for i in range(300)}},
        {"stop": ["x" * 256] * 16},
        {"prompt": "\x00�‏👩‍👩‍👧 <|endoftext|> {0.__class__}"},
        {"prompt": [50256]},
    ):
        assert server.generate(**({"prompt": "a", "max_tokens": 3} | extreme))["choices"][0]["finish_reason"]


def test_body_too_large_declared_and_chunked(server: Any) -> None:
    too_large = b'{"prompt":"' + b"a" * 5_000_000 + b'"}'
    declared = server.http.post("/generate", content=too_large)
    assert declared.status_code == 413
    assert declared.json()["error"]["code"] == "request_too_large"
    chunks = (too_large[i : i + 100_000] for i in range(0, len(too_large), 100_000))
    assert server.http.post("/generate", content=chunks).status_code == 413


def test_a_text_no_context_can_hold_is_refused_before_it_is_tokenised(server: Any) -> None:
    response = server.http.post("/generate", json={"prompt": "a" * 200_000})
    assert response.status_code == 400
    assert response.json()["error"]["field"] == "prompt"


LONG = "word " * 2000


@pytest.mark.parametrize(
    ("path", "body", "limit"),
    [
        ("/generate", {"prompt": LONG}, "max_tokens"),
        ("/generate", {"prompt": [1] * 1024}, "max_tokens"),
        ("/v1/completions", {"prompt": LONG}, "max_tokens"),
        ("/v1/completions", {"prompt": LONG, "structured_outputs": {"choice": ["a", "b"]}}, "max_tokens"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": LONG}]}, "max_tokens"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": LONG}]}, "max_completion_tokens"),
        ("/", {"inputs": LONG}, "max_new_tokens"),
        ("/generate_stream", {"inputs": LONG}, "max_new_tokens"),
    ],
)
def test_a_prompt_that_is_too_long_is_told_apart_from_a_limit_that_is_too_high(
    server: Any, path: str, body: dict[str, Any], limit: str
) -> None:
    """The limit is named as the caller names it, and only to a caller who gave one."""
    unlimited = server.http.post(path, json=body)
    assert unlimited.status_code in (400, 422)
    assert "and the answer at least one, " in unlimited.text
    assert "max_" not in unlimited.text
    given = {"parameters": {limit: 5}} if limit == "max_new_tokens" else {limit: 5}
    if "structured_outputs" not in body:
        assert f"and {limit} is 5: " in server.http.post(path, json=body | given).text


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/generate", 405), ("POST", "/nowhere", 404)])
def test_wrong_method_or_path(server: Any, method: str, path: str, status: int) -> None:
    response = server.http.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]["message"]
