"""Bad input is a 4xx in the surface's own envelope, never a 500, and the next request is right."""

import json
from typing import Any

import pytest

BAD_BODIES = [
    # body, param
    ("", None),
    ("null", None),
    ("[]", None),
    ('"x"', None),
    ("{", None),
    ("{}", "prompt"),
    ("[" * 100_000, None),
    ('{"prompt":"a","seed":' + "1" * 5000 + "}", None),
    ('{"prompt":"\\ud800"}', "prompt"),
    ('{"prompt":""}', "prompt"),
    ('{"prompt":[]}', "prompt"),
    ('{"prompt":[[]]}', "prompt"),
    ('{"prompt":[-1]}', "prompt"),
    ('{"prompt":[50257]}', "prompt"),
    ('{"prompt":[999999]}', "prompt"),
    ('{"prompt":[1.5]}', "prompt"),
    ('{"prompt":[true]}', "prompt"),
    ('{"prompt":["a",1]}', "prompt"),
    ('{"prompt":["a",""]}', "prompt"),
    ('{"prompt":7}', "prompt"),
    ('{"prompt":null}', "prompt"),
    ('{"prompt":{"text":"a"}}', "prompt"),
    (json.dumps({"prompt": [1] * 1024}), "prompt"),
    (json.dumps({"prompt": ["a"] * 129}), "prompt"),
    (json.dumps({"prompt": "a" * 200_000}), "prompt"),
    ('{"prompt":["a","b","c"],"n":128}', "prompt"),
    ('{"prompt":["a","b","c"],"best_of":128}', "prompt"),
    ('{"prompt":"a","model":7}', "model"),
    ('{"prompt":"a","max_tokens":-1}', "max_tokens"),
    ('{"prompt":"a","max_tokens":1.5}', "max_tokens"),
    ('{"prompt":"a","max_tokens":"5"}', "max_tokens"),
    ('{"prompt":"a","max_tokens":1024}', "prompt"),
    ('{"prompt":"a","max_tokens":9223372036854775808}', "max_tokens"),
    ('{"prompt":"a","temperature":-1}', "temperature"),
    ('{"prompt":"a","temperature":NaN}', "temperature"),
    ('{"prompt":"a","temperature":Infinity}', "temperature"),
    ('{"prompt":"a","temperature":1e400}', "temperature"),
    ('{"prompt":"a","temperature":true}', "temperature"),
    ('{"prompt":"a","temperature":"0.5"}', "temperature"),
    ('{"prompt":"a","top_p":0}', "top_p"),
    ('{"prompt":"a","top_p":1.1}', "top_p"),
    ('{"prompt":"a","top_k":-2}', "top_k"),
    ('{"prompt":"a","top_k":9223372036854775808}', "top_k"),
    ('{"prompt":"a","min_p":-0.1}', "min_p"),
    ('{"prompt":"a","typical_p":0}', "typical_p"),
    ('{"prompt":"a","n":0}', "n"),
    ('{"prompt":"a","n":1000000000}', "n"),
    ('{"prompt":"a","n":2,"best_of":1}', "best_of"),
    ('{"prompt":"a","best_of":2,"stream":true}', "best_of"),
    ('{"prompt":"a","seed":9223372036854775808}', "seed"),
    ('{"prompt":"a","seed":99999999999999999999999999}', "seed"),
    ('{"prompt":"a","seed":1.5}', "seed"),
    ('{"prompt":"a","logprobs":-1}', "logprobs"),
    ('{"prompt":"a","logprobs":21}', "logprobs"),
    ('{"prompt":"a","logprobs":true}', "logprobs"),
    ('{"prompt":"a","presence_penalty":1e9}', "presence_penalty"),
    ('{"prompt":"a","frequency_penalty":-2.1}', "frequency_penalty"),
    ('{"prompt":"a","repetition_penalty":0}', "repetition_penalty"),
    ('{"prompt":"a","logit_bias":{"abc":1}}', "logit_bias"),
    ('{"prompt":"a","logit_bias":{"-1":1}}', "logit_bias"),
    ('{"prompt":"a","logit_bias":{"50257":1}}', "logit_bias"),
    ('{"prompt":"a","logit_bias":{"99999999999999999999":1}}', "logit_bias"),
    ('{"prompt":"a","logit_bias":{"5":NaN}}', "logit_bias.5"),
    ('{"prompt":"a","logit_bias":{"5":101}}', "logit_bias.5"),
    (json.dumps({"prompt": "a", "logit_bias": {str(i): 1 for i in range(301)}}), "logit_bias"),
    ('{"prompt":"a","stop":""}', "stop.0"),
    ('{"prompt":"a","stop":[""]}', "stop.0"),
    ('{"prompt":"a","stop":7}', "stop"),
    (json.dumps({"prompt": "a", "stop": ["x"] * 17}), "stop"),
    (json.dumps({"prompt": "a", "stop": ["x" * 257]}), "stop.0"),
    ('{"prompt":"a","stop_token_ids":[50257]}', "stop_token_ids"),
    ('{"prompt":"a","min_tokens":17}', "min_tokens"),
    ('{"prompt":"a","stream":1}', "stream"),
    ('{"prompt":"a","echo":"yes"}', "echo"),
    ('{"prompt":"a","stream_options":{"include_usage":true}}', "stream_options"),
    ('{"prompt":"a","stream":true,"stream_options":7}', "stream_options"),
    ('{"prompt":"a","truncate_prompt_tokens":0}', "truncate_prompt_tokens"),
    ('{"prompt":"a","truncate_prompt_tokens":-2}', "truncate_prompt_tokens"),
    ('{"prompt":"a","suffix":"b"}', "suffix"),
    ('{"prompt":"a","prompt_logprobs":1}', "prompt_logprobs"),
    ('{"prompt":"a","response_format":{"type":"grammar"}}', "response_format.type"),
    ('{"prompt":"a","response_format":{"type":"json_schema"}}', "response_format"),
    ('{"prompt":"a","response_format":{"type":"json_schema","json_schema":{}}}', "response_format.json_schema.schema"),
    (
        json.dumps({"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"schema": 7}}}),
        "response_format.json_schema.schema",
    ),
    (
        json.dumps(
            {"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}}
        ),
        "response_format",
    ),
    ('{"prompt":"a","response_format":{"type":"json_object"},"structured_outputs":{"regex":"a"}}', "response_format"),
    ('{"prompt":"a","structured_outputs":7}', "structured_outputs"),
    ('{"prompt":"a","structured_outputs":{}}', "structured_outputs"),
    ('{"prompt":"a","structured_outputs":{"grammar":"start: A"}}', "structured_outputs"),
    ('{"prompt":"a","structured_outputs":{"structural_tag":"{}"}}', "structured_outputs"),
    ('{"prompt":"a","structured_outputs":{"regex":"a","json":{}}}', "structured_outputs"),
    ('{"prompt":"a","structured_outputs":{"regex":7}}', "structured_outputs.regex"),
    ('{"prompt":"a","structured_outputs":{"regex":""}}', "structured_outputs.regex"),
    ('{"prompt":"a","structured_outputs":{"regex":"\\ud800"}}', "structured_outputs.regex"),
    ('{"prompt":"a","structured_outputs":{"regex":"("}}', "structured_outputs.regex"),
    ('{"prompt":"a","structured_outputs":{"regex":"(?=a)b"}}', "structured_outputs.regex"),
    ('{"prompt":"a","structured_outputs":{"regex":"a{1000000}"}}', "structured_outputs.regex"),
    ('{"prompt":"a","structured_outputs":{"regex":"(a{1000}){1000}"}}', "structured_outputs.regex"),
    ('{"prompt":"a","structured_outputs":{"regex":"(a?){500}a{500}"}}', "structured_outputs.regex"),
    (json.dumps({"prompt": "a", "structured_outputs": {"regex": "x" * 2001}}), "structured_outputs.regex"),
    (json.dumps({"prompt": "a", "structured_outputs": {"regex": "(" * 900 + ")" * 900}}), "structured_outputs.regex"),
    ('{"prompt":"a","structured_outputs":{"json":"{"}}', "structured_outputs.json"),
    ('{"prompt":"a","structured_outputs":{"json":"[]"}}', "structured_outputs.json"),
    ('{"prompt":"a","structured_outputs":{"json":{"type":"strin"}}}', "structured_outputs.json"),
    ('{"prompt":"a","structured_outputs":{"json":{"const":"\\ud800"}}}', "structured_outputs.json"),
    ('{"prompt":"a","structured_outputs":{"json":{"minimum":NaN}}}', "structured_outputs.json"),
    ('{"prompt":"a","structured_outputs":{"json":{"not":{}}}}', "structured_outputs.json"),
    ('{"prompt":"a","structured_outputs":{"json":{"$ref":"#"}}}', "structured_outputs.json"),
    ('{"prompt":"a","structured_outputs":{"json":{"$ref":"http://127.0.0.1/x"}}}', "structured_outputs.json"),
    ('{"prompt":"a","structured_outputs":{"json":{"x-guidance":{"lenient":true}}}}', "structured_outputs.json"),
    ('{"prompt":"a","structured_outputs":{"json":{"pattern":"a{1000000}"}}}', "structured_outputs.json"),
    (
        '{"prompt":"a","structured_outputs":{"json":' + '{"items":' * 40 + "{}" + "}" * 40 + "}}",
        "structured_outputs.json",
    ),
    (
        '{"prompt":"a","structured_outputs":{"json":' + '{"items":' * 900 + "{}" + "}" * 900 + "}}",
        "structured_outputs.json",
    ),
    (
        json.dumps({"prompt": "a", "structured_outputs": {"json": {"enum": ["x" * 999] * 20}}}),
        "structured_outputs.json",
    ),
    (json.dumps({"prompt": "a", "structured_outputs": {"json": {"const": "x" * 1001}}}), "structured_outputs.json"),
    ('{"prompt":"a","structured_outputs":{"regex":"a"},"min_tokens":1}', "min_tokens"),
    ('{"prompt":"a","structured_outputs":{"regex":"a"},"ignore_eos":true}', "ignore_eos"),
    ('{"prompt":"a","structured_outputs":{"choice":[]}}', "structured_outputs.choice"),
    ('{"prompt":"a","structured_outputs":{"choice":[""]}}', "structured_outputs.choice.0"),
    ('{"prompt":"a","structured_outputs":{"choice":["a","b c d"]},"max_tokens":1}', "max_tokens"),
    ('{"prompt":"a","structured_outputs":{"choice":["a"]},"top_k":5}', "top_k"),
    ('{"prompt":"a","structured_outputs":{"choice":["a"]},"stop":["b"]}', "stop"),
    ('{"prompt":"a","structured_outputs":{"choice":["a"]},"best_of":2}', "best_of"),
    ('{"prompt":"a","guided_json":{}}', "guided_json"),
    ('{"prompt":"a","prompt_embeds":"AAAA"}', "prompt_embeds"),
    ('{"prompt":"a","use_beam_search":true}', "n"),
    ('{"prompt":"a","use_beam_search":true,"n":65}', "n"),
    ('{"prompt":"a","use_beam_search":true,"n":4,"stream":true}', "stream"),
    ('{"prompt":"a","use_beam_search":true,"n":4,"temperature":0.5}', "temperature"),
    ('{"prompt":"a","use_beam_search":true,"n":4,"stop":"x"}', "stop"),
    ('{"prompt":"a","use_beam_search":true,"n":4,"structured_outputs":{"regex":"a"}}', "structured_outputs"),
    ('{"prompt":"a","use_beam_search":true,"n":4,"max_tokens":0}', "max_tokens"),
    (json.dumps({"prompt": [0] * (2**18 + 1)}), "prompt"),
    ('{"prompt":"a","length_penalty":2.0}', "length_penalty"),
    ('{"prompt":"a","early_stopping":"soon"}', "early_stopping"),
    ('{"prompt":"a","skip_special_tokens":false}', "skip_special_tokens"),
]

OWN_BAD_BODIES = [
    # path, body, status, field
    ("/tokenize", "", 422, None),
    ("/tokenize", "{}", 422, "prompt"),
    ("/tokenize", '{"prompt":7}', 422, "prompt"),
    ("/tokenize", '{"prompt":"\\ud800"}', 422, "prompt"),
    ("/tokenize", '{"prompt":"a","add_special_tokens":1}', 422, "add_special_tokens"),
    ("/tokenize", '{"prompt":"a","model":"gpt-7"}', 404, "model"),
    ("/tokenize", '{"prompt":"a","nothing":1}', 422, "nothing"),
    ("/detokenize", "{}", 422, "tokens"),
    ("/detokenize", '{"tokens":[-1]}', 422, "tokens.0"),
    ("/detokenize", '{"tokens":[1.5]}', 422, "tokens.0"),
    ("/detokenize", '{"tokens":[50257]}', 400, "tokens"),
    ("/detokenize", '{"tokens":"a"}', 422, "tokens"),
    ("/score", "", 422, None),
    ("/score", "{}", 400, "text"),
    ("/score", '{"text":"a","token_ids":[1]}', 400, "text"),
    ("/score", '{"text":""}', 400, "text"),
    ("/score", '{"text":[]}', 422, "text"),
    ("/score", '{"text":[1]}', 422, "text"),
    ("/score", '{"text":null}', 422, "text"),
    ("/score", '{"text":"\\ud800"}', 422, "text"),
    ("/score", '{"text":"a","top_logprobs":21}', 422, "top_logprobs"),
    ("/score", '{"text":"a","add_bos_token":false}', 400, "text"),
    ("/score", '{"token_ids":[]}', 422, "token_ids"),
    ("/score", '{"token_ids":[true]}', 422, "token_ids"),
    ("/score", '{"token_ids":[50257]}', 400, "token_ids"),
    ("/score", json.dumps({"token_ids": [1] * 1024}), 400, "token_ids"),
    ("/score", json.dumps({"text": ["a"] * 129}), 400, "text"),
    ("/score", json.dumps({"token_ids": [[1] * 1000] * 8, "top_logprobs": 20}), 400, "top_logprobs"),
    ("/score", json.dumps({"text": "a" * 200_000}), 400, "text"),
]

TGI_BAD_BODIES = [
    '{"inputs":""}',
    '{"inputs":7}',
    '{"inputs":"\\ud800"}',
    '{"inputs":"a","parameters":7}',
    '{"inputs":"a","parameters":{"max_new_tokens":0}}',
    '{"inputs":"a","parameters":{"max_new_tokens":1024}}',
    '{"inputs":"a","parameters":{"temperature":-1}}',
    '{"inputs":"a","parameters":{"temperature":NaN}}',
    '{"inputs":"a","parameters":{"typical_p":0}}',
    '{"inputs":"a","parameters":{"watermark":true}}',
    '{"inputs":"a","parameters":{"grammar":7}}',
    '{"inputs":"a","parameters":{"grammar":{"type":"regex","value":"("}}}',
    '{"inputs":"a","parameters":{"grammar":{"type":"regex","value":{}}}}',
    '{"inputs":"a","parameters":{"grammar":{"type":"json","value":"a"}}}',
    '{"inputs":"a","parameters":{"grammar":{"type":"json","value":{"type":"x"}}}}',
    '{"inputs":"a","parameters":{"grammar":{"type":"json_schema","value":{"schema":7}}}}',
    '{"inputs":"a","parameters":{"grammar":{"type":"lark","value":"a"}}}',
    '{"inputs":"a","parameters":{"adapter_id":"x"}}',
    '{"inputs":"a","parameters":{"best_of":2}}',
    '{"inputs":"a","parameters":{"seed":-1}}',
    '{"inputs":"a","parameters":{"nothing":1}}',
]


def post(server: Any, path: str, body: str) -> Any:
    response = server.http.post(path, content=body, headers={"content-type": "application/json"})
    assert "Traceback" not in response.text
    return response


def assert_openai_error(response: Any, status: int, param: str | None) -> None:
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert (response.status_code, body["error"]["param"]) == (status, param), body
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["message"]


@pytest.mark.parametrize(("body", "param"), BAD_BODIES, ids=lambda value: str(value)[:60])
def test_completions(server: Any, body: str, param: str | None) -> None:
    assert_openai_error(post(server, "/v1/completions", body), 400, param)


@pytest.mark.parametrize(("path", "body", "status", "field"), OWN_BAD_BODIES, ids=lambda value: str(value)[:60])
def test_tokens_and_scores(server: Any, path: str, body: str, status: int, field: str | None) -> None:
    response = post(server, path, body)
    error = response.json()["error"]
    assert (response.status_code, error["field"]) == (status, field), error
    assert error["message"]
    assert error["code"]


@pytest.mark.parametrize("path", ["/", "/generate", "/generate_stream"])
@pytest.mark.parametrize("body", TGI_BAD_BODIES)
def test_tgi(server: Any, path: str, body: str) -> None:
    response = post(server, path, body)
    assert response.status_code == 422
    assert response.json().keys() == {"error", "error_type"}
    assert response.json()["error_type"] == "validation"


def test_the_next_request_is_right(server: Any) -> None:
    request = {"prompt": "after all that", "max_tokens": 5, "temperature": 0}
    before = server.http.post("/v1/completions", json=request).json()["choices"]
    for body, _ in BAD_BODIES:
        post(server, "/v1/completions", body)
    assert server.http.post("/v1/completions", json=request).json()["choices"] == before


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/completions", 405),
        ("POST", "/v1/models", 405),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/models/no/such/model", 404),
    ],
)
def test_the_frameworks_errors_have_openais_envelope(server: Any, method: str, path: str, status: int) -> None:
    response = server.http.request(method, path)
    assert_openai_error(response, status, "model" if "/no/" in path else None)
    assert status != 405 or response.headers["allow"]


def test_too_large_and_undeclared_bodies(server: Any) -> None:
    too_large = b'{"prompt":"' + b"a" * 5_000_000 + b'"}'
    assert_openai_error(server.http.post("/v1/completions", content=too_large), 413, None)
    chunks = (too_large[i : i + 100_000] for i in range(0, len(too_large), 100_000))
    assert_openai_error(server.http.post("/v1/completions", content=chunks), 413, None)
    assert_openai_error(server.http.post("/v1/completions", content=b'{"prompt":"a"}'), 400, None)
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert_openai_error(server.http.post("/v1/completions", content=b'{"prompt":"a"}', headers=form), 400, None)
    assert_openai_error(post(server, "/v1/completions", '{"prompt":"\xff"}'.encode("latin-1")), 400, None)


def test_names_the_caller_chose_come_back_as_text(server: Any) -> None:
    for name in ("x\r\nSet-Cookie: a=b", "\x1b[31mred", "x" * 10_000):
        response = server.http.post("/v1/completions", json={"prompt": "a", "model": name})
        assert_openai_error(response, 404, "model")
        assert len(response.content) < 1000
        ignored = server.http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1, name: 1})
        assert ignored.status_code == 200
        assert "set-cookie" not in ignored.headers
        assert len(ignored.headers["x-ignored-fields"]) < 2000
