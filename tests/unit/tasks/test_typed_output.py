"""`output: {kind: json}` and `decoding: {regex, num_beams}`: answers as typed as the request."""

import re
from typing import Any

import jsonschema
import pytest
import torch

from zeroshot.errors import OutputIncomplete, PromptFileError
from zeroshot.model_client import Completion
from zeroshot.tasks import checks
from zeroshot.tasks.task import _json_value
from zeroshot.types import SamplingParams

HEAD = """name: t
summary: A task.
inputs: {text: {type: string, example: It was a dark night}}
template: "{text}"
"""
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[A-Z][a-z]{1,9}$"}, "age": {"enum": [1, 2, 30]}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
JSON_TASK = f"{HEAD}decoding: {{temperature: 1.0}}\noutput: {{kind: json, schema: {SCHEMA}}}\n".replace(
    "False", "false"
)


def test_the_output_is_the_value(make_task: Any, run: Any) -> None:
    task = make_task(JSON_TASK)
    outputs = [run(task, text="A dark night", seed=seed).output for seed in range(5)]
    for output in outputs:
        jsonschema.validate(output, SCHEMA)
    assert len({str(output) for output in outputs}) > 1
    result = run(task, text="A dark night", seed=3, explain=True)
    assert result.output == outputs[3]
    assert result.as_body()["explain"]["decoding"]["grammar"]["kind"] == "json_schema"


def test_the_declared_schema_is_shown(serve: Any, tmp_path: Any) -> None:
    (tmp_path / "t.yaml").write_text(JSON_TASK, encoding="utf-8")
    server = serve(tmp_path)
    assert server.get("/tasks/t").json()["prompt_file"]["output"] == {"kind": "json", "schema": SCHEMA}
    shown = server.get("/openapi.json").json()["components"]["schemas"]["TTaskResponse"]["properties"]["output"]
    assert {key: shown[key] for key in SCHEMA} == SCHEMA
    answer = server.post("/tasks/t", {"text": "A dark night"})
    assert answer.status_code == 200, answer.text
    jsonschema.validate(answer.json()["output"], shown)


def test_json_that_does_not_come_to_its_end(make_task: Any, run: Any) -> None:
    with pytest.raises(OutputIncomplete) as raised:
        run(make_task(JSON_TASK), text="A dark night", max_tokens=3)
    assert raised.value.field == "max_tokens"


@pytest.mark.parametrize("max_tokens", [1, 3])
def test_json_cut_by_the_caller_is_a_422(serve: Any, tmp_path: Any, max_tokens: int) -> None:
    (tmp_path / "t.yaml").write_text(JSON_TASK, encoding="utf-8")
    server = serve(tmp_path)
    refused = server.post("/tasks/t", {"text": "A dark night", "max_tokens": max_tokens})
    assert refused.status_code == 422
    error = refused.json()["error"]
    assert (error["code"], error["field"]) == ("output_incomplete", "max_tokens")
    assert f"After {max_tokens} tokens" in error["message"]
    batch = server.post("/tasks/t/batch", {"inputs": [{"text": "A dark night", "max_tokens": n} for n in (3, 64)]})
    assert batch.status_code == 200
    cut, whole = batch.json()["results"]
    assert cut["error"]["code"] == "output_incomplete"
    jsonschema.validate(whole["output"], SCHEMA)


def test_text_that_matches(make_task: Any, run: Any) -> None:
    task = make_task(HEAD + "decoding: {regex: ' [a-z]{2,5}, (yes|no)', temperature: 1.0}\noutput: {kind: text}\n")
    for seed in range(5):
        assert re.fullmatch("[a-z]{2,5}, (yes|no)", run(task, text="A dark night", seed=seed).output)


def test_beams_are_hugging_faces(make_task: Any, run: Any, hf: Any, tokenizer: Any) -> None:
    task = make_task(HEAD + "decoding: {num_beams: 3, max_tokens: 8}\noutput: {kind: text, strip: false}\n")
    prompt = tokenizer.encode("A dark night")
    with torch.inference_mode():
        row = hf.generate(torch.tensor([prompt]), max_new_tokens=8, num_beams=3, do_sample=False)[0].tolist()
    assert run(task, text="A dark night").output == tokenizer.decode(row[len(prompt) :])
    assert not {"temperature", "seed"} & task.request_model.model_fields.keys()


@pytest.mark.parametrize(
    ("rest", "place", "message"),
    [
        ("output: {kind: json, schema: {type: strin}}", "output.schema", "Invalid type"),
        ("output: {kind: json, schema: {$ref: '#'}}", "output.schema", r"\$ref"),
        ("output: {kind: json, schema: {type: number}, example: .inf}", "output.example", "JSON doesn't have"),
        ("output: {kind: json, schema: {type: string}}\ndecoding: {stop: [a]}", "decoding.stop", "remove"),
        ("output: {kind: json, schema: {type: string}}\ndecoding: {regex: a}", "decoding.regex", "remove"),
        ("output: {kind: text}\ndecoding: {regex: '('}", "decoding.regex", "unclosed group"),
        ("output: {kind: text}\ndecoding: {regex: 'a{100000}'}", "decoding.regex", "repetitions"),
        ("output: {kind: text}\ndecoding: {num_beams: 2, temperature: 1.0}", "decoding.num_beams", "draws nothing"),
        ("output: {kind: text}\ndecoding: {num_beams: 2, typical_p: 0.9}", "decoding.num_beams", "draws nothing"),
        ("output: {kind: text}\ndecoding: {num_beams: 2, regex: a}", "decoding.num_beams", "combined"),
    ],
)
def test_mistakes_are_found_when_the_file_is_read(rest: str, place: str, message: str) -> None:
    with pytest.raises(PromptFileError, match=f"{place}: .*{message}"):
        checks.parse("t.yaml", (HEAD + rest).encode())


@pytest.mark.parametrize("number", ["1e999", "-1E400", "1" * 5000, "-" + "9" * 4400])
def test_a_number_that_nothing_can_hold_is_no_answer(number: str) -> None:
    with pytest.raises(OutputIncomplete, match="too large"):
        _json_value(Completion(0, text=f'{{"a": [{number}]}}', finish_reason="stop"), SamplingParams())


def test_other_numbers_stay_what_they_are() -> None:
    value = _json_value(Completion(0, text="[1, -20, 1.5, 2e3, -0]", finish_reason="stop"), SamplingParams())
    assert list(map(repr, value)) == ["1", "-20", "1.5", "2000.0", "0"]
