"""The HTTP surface over a real engine: one YAML file is one endpoint."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2LMHeadModel

from zeroshot.text.tokenizer import Tokenizer

SHOUT = """\
name: shout
summary: Say it louder.
inputs:
  text: {type: string, max_chars: 2000, description: What to say., example: hello, truncate: right}
examples: ["hi -> HI"]
template: "{text} ->"
decoding: {max_tokens: 8}
output: {kind: text, example: HELLO}
"""


@pytest.fixture
def server(tmp_path: Path, serve: Callable[[Path], Any]) -> Any:
    (tmp_path / "shout.yaml").write_text(SHOUT)
    return serve(tmp_path)


def test_greedy_text_is_hugging_faces(server: Any, hf: GPT2LMHeadModel, tokenizer: Tokenizer) -> None:
    import torch

    answer = server.post("/tasks/shout", {"text": "hello", "explain": True}).json()
    prompt_ids = tokenizer.encode("hi -> HI\nhello ->")
    with torch.no_grad():
        whole = hf.generate(torch.tensor([prompt_ids]), max_new_tokens=8, do_sample=False)[0].tolist()
    expected = tokenizer.decode(whole[len(prompt_ids) :])
    assert answer["output"] == expected.strip()
    assert answer["task"] == "shout"
    assert answer["version"] == server.catalog.get("shout").version
    assert answer["usage"] == {
        "prompt_tokens": len(prompt_ids), "completion_tokens": 8, "total_tokens": len(prompt_ids) + 8,
        "cached_tokens": 0,
    }  # fmt: skip
    explain = answer["explain"]
    assert explain["prompt"] == "hi -> HI\nhello ->"
    assert [(part["field"], part["text"]) for part in explain["parts"]] == [
        (None, "hi -> HI\n"), ("text", "hello"), (None, " ->"),
    ]  # fmt: skip
    assert explain["truncated"] is None
    assert explain["finish_reason"] == "length"
    assert explain["decoding"] == {"max_tokens": 8, "temperature": 0.0}
    assert explain["completion"] == expected


def test_the_seed_in_explain_gives_the_text_again(server: Any) -> None:
    body = {"text": "hello", "temperature": 1.5, "explain": True}
    first = server.post("/tasks/shout", body).json()
    again = server.post("/tasks/shout", body | {"seed": first["explain"]["seed"]}).json()
    other = server.post("/tasks/shout", body).json()
    assert first["output"] == again["output"] != other["output"]


@pytest.mark.parametrize(
    "text", ["<|endoftext|>", "{0.__class__}", "{text}", "{{7*7}}", "${x}", "%s", "\x00\x1b[31m\r\n", "猫🙂\u202e", " "]
)
def test_a_field_is_plain_text(server: Any, client: Any, tokenizer: Tokenizer, text: str) -> None:
    answer = server.post("/tasks/shout", {"text": text, "explain": True})
    assert answer.status_code == 200
    assert answer.json()["explain"]["prompt"] == f"hi -> HI\n{text} ->"
    assert client.eos_token_id not in client.requests[-1].prompt_token_ids
    assert tokenizer.decode(client.requests[-1].prompt_token_ids) == f"hi -> HI\n{text} ->"


def test_too_long_for_the_context(server: Any) -> None:
    body = {"text": "word " * 300}
    refused = server.post("/tasks/shout", body)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["code"], error["field"]) == ("context_length_exceeded", "text")
    assert "256" in error["message"]
    answer = server.post("/tasks/shout", body | {"truncate": True, "explain": True}).json()
    assert answer["usage"]["prompt_tokens"] + 8 <= 256
    assert answer["explain"]["truncated"]["field"] == "text"
    assert answer["explain"]["truncated"]["tokens"] > 40
    assert answer["explain"]["prompt"].startswith("hi -> HI\nword word")
    assert answer["explain"]["prompt"].endswith(" ->")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "text"),
        ({"text": 1}, 422, "text"),
        ({"text": "x" * 2001}, 422, "text"),
        ({"text": "x", "max_tokens": True}, 422, "max_tokens"),
        ({"text": "x", "top_k": 3}, 422, "top_k"),
        ({"text": "x", "max_tokens": 300}, 400, "max_tokens"),
        ({"text": "x " * 20, "max_tokens": 240}, 400, "text"),
        ([], 422, None),
        (None, 422, None),
    ],
)
def test_bad_bodies(server: Any, body: Any, status: int, field: str | None) -> None:
    answer = server.post("/tasks/shout", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert answer.json()["error"]["field"] == field
    assert server.post("/tasks/shout", {"text": "x"}).status_code == 200


@pytest.mark.parametrize("content", [b"", b"{", b'{"text": "\xff"}', b'{"text": "\\ud800"}', b"[" * 100_000])
def test_bodies_that_are_no_json(server: Any, content: bytes) -> None:
    answer = server.post("/tasks/shout", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "validation_error"


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_bodies_not_declared_as_json(server: Any, media_type: str) -> None:
    answer = server.post("/tasks/shout", content=b'{"text": "x"}', headers={"Content-Type": media_type})
    assert answer.status_code == 415
    assert "application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["nothing", "..%2f..%2fetc", "shout.yaml", "%00", "%ff", "{0.__class__}", "x" * 5000])
def test_unknown_tasks(server: Any, name: str) -> None:
    for answer in (server.post(f"/tasks/{name}", {"text": "x"}), server.get(f"/tasks/{name}")):
        assert answer.status_code == 404
        assert "error" in answer.json()


def test_a_wrong_path_or_method_is_named(server: Any) -> None:
    assert "/nowhere" in server.get("/nowhere").json()["error"]["message"]
    assert "takes no GET, only POST" in server.get("/tasks/shout/batch").json()["error"]["message"]


def test_a_batch_answers_in_order_with_an_error_where_one_is(server: Any) -> None:
    words = [f"word {number}" for number in range(20)]
    inputs: list[Any] = [{"text": word} for word in words]
    inputs[3] = {"txt": "no"}
    inputs[7] = {"text": "word " * 300}
    inputs[11] = "no"
    answer = server.post("/tasks/shout/batch", {"inputs": inputs})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [number for number, result in enumerate(results) if "error" in result] == [3, 7, 11]
    assert results[3]["error"]["field"] == "txt"
    assert results[7]["error"]["code"] == "context_length_exceeded"
    assert results[11]["error"]["message"] == "Each of the inputs must be a JSON object."
    alone = {number: server.post("/tasks/shout", inputs[number]).json()["output"] for number in (0, 10, 19)}
    assert {number: results[number]["output"] for number in alone} == alone
    assert answer.json()["usage"]["completion_tokens"] == 17 * 8


@pytest.mark.parametrize("body", [{}, {"inputs": []}, {"inputs": {}}, {"inputs": [{}] * 257}, {"inputs": [], "x": 1}])
def test_a_batch_that_is_none(server: Any, body: Any) -> None:
    assert server.post("/tasks/shout/batch", body).status_code == 422


def test_get_tells_all_about_a_task(server: Any) -> None:
    (listed,) = server.get("/tasks").json()["tasks"]
    assert listed["name"] == "shout"
    details = server.get(listed["url"]).json()
    assert details["prompt_file"]["template"] == "{text} ->"
    assert details["example"] == {"text": "hello"}
    assert details["request_schema"]["required"] == ["text"]
    assert details["version"] == listed["version"]


def test_a_broken_file_whose_name_is_no_utf8_is_named(server: Any, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.yaml")).write_text("name: [caf")
    server.catalog.reload()
    answer = server.get("/tasks")
    assert answer.status_code == 200
    (error,) = answer.json()["errors"]
    assert error["file"] == r"caf\xe9.yaml"
    assert error["message"].startswith(r"caf\xe9.yaml:1: ")


def test_one_more_yaml_file_is_one_more_endpoint_while_serving(server: Any, tmp_path: Path) -> None:
    async def drop_in() -> None:
        watcher = asyncio.create_task(server.catalog.watch())
        async with server.http() as http:
            assert (await http.post("/tasks/whisper", json={"text": "x"})).status_code == 404
            assert "/tasks/whisper" not in (await http.get("/openapi.json")).json()["paths"]
            await asyncio.sleep(0.3)
            (tmp_path / "whisper.yaml").write_text(SHOUT.replace("name: shout", "name: whisper"))
            async with asyncio.timeout(2):
                while (answer := await http.post("/tasks/whisper", json={"text": "x"})).status_code == 404:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert answer.status_code == 200
            assert "/tasks/whisper" in (await http.get("/openapi.json")).json()["paths"]

            (tmp_path / "whisper.yaml").write_text(SHOUT.replace("name: shout", "name: [whisper"))
            async with asyncio.timeout(2):
                while not (errors := (await http.get("/tasks")).json()["errors"]):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert (errors[0]["file"], errors[0]["serving"]) == ("whisper.yaml", "whisper")
            assert (await http.post("/tasks/whisper", json={"text": "x"})).status_code == 200
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)

    asyncio.run(drop_in())


def test_openapi_shows_each_task_with_its_own_schema(bundled: Any) -> None:
    page = bundled.get("/openapi.json").json()
    schemas = page["components"]["schemas"]
    for task in bundled.catalog.tasks:
        post = page["paths"][f"/tasks/{task.name}"]["post"]
        request = post["requestBody"]["content"]["application/json"]
        schema = schemas[request["schema"]["$ref"].rsplit("/", 1)[1]]
        assert set(task.file.inputs) <= set(schema["properties"])
        task.request_model.model_validate_json(json.dumps(request["example"]))
        if task.file.output.kind != "score":
            answer = post["responses"]["200"]["content"]["application/json"]["example"]
            assert answer["output"] == task.file.output.example
        assert f"/tasks/{task.name}/batch" in page["paths"]
    assert "/tasks/{name}" in page["paths"]
    assert "post" not in page["paths"]["/tasks/{name}"]
    refs = {ref.rsplit("/", 1)[1] for ref in _refs(page)}
    assert refs <= set(schemas)
    assert schemas["SentimentTaskResponse"]["properties"]["output"]["enum"] == ["positive", "negative"]


def test_operations_of_tasks_with_similar_names_have_ids_of_their_own(server: Any, tmp_path: Path) -> None:
    for name in ("shout_batch", "shout-batch"):
        (tmp_path / f"{name}.yaml").write_text(SHOUT.replace("name: shout", f"name: {name}"))
    server.catalog.reload()
    page = server.get("/openapi.json").json()
    ids = [operation["operationId"] for path in page["paths"].values() for operation in path.values()]
    assert len(set(ids)) == len(ids) > 6
    assert {ref.rsplit("/", 1)[1] for ref in _refs(page)} <= page["components"]["schemas"].keys()


def _refs(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(_refs(item) for item in value.values()))
    return set().union(*(_refs(item) for item in value)) if isinstance(value, list) else set()
