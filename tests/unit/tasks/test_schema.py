"""Each task's request model: exactly its fields, exactly their types."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from zeroshot.errors import ValidationFailed
from zeroshot.tasks.prompt_file import RESERVED_NAMES
from zeroshot.tasks.schema import TaskRequest, camel_case, example_request
from zeroshot.tasks.task import Task

ALL_KINDS = """\
name: all-kinds
summary: One input of each kind.
inputs:
  text: {type: string, max_chars: 20, example: hi}
  count: {type: integer, min: 0, max: 10, default: 3}
  share: {type: number, min: 0, max: 1, default: 0.5}
  loud: {type: boolean, default: false}
  tone: {type: enum, enum: [warm, cold], default: warm}
  words: {type: list, max_items: 3, max_chars: 5, separator: "; ", default: [a, b]}
  json: {type: string, default: "pydantic uses this name"}
template: "{text}|{count}|{share}|{loud}|{tone}|{words}|{json}"
output: {kind: text}
"""
LABELS = """\
name: pick
summary: Pick.
inputs:
  text: {type: string}
  labels: {type: list}
template: "{text}\\nTopic:"
output: {kind: label, labels: labels}
"""


@pytest.fixture
def model(make_task: Callable[[str], Task]) -> type[TaskRequest]:
    return make_task(ALL_KINDS).request_model


def test_values_read_in_the_prompt_as_documented(make_task: Callable[[str], Task]) -> None:
    task = make_task(ALL_KINDS)
    request = task.request_model.model_validate_json('{"text": "hi", "share": 1, "loud": true, "words": ["x", "y"]}')
    values = {name: task.file.inputs[name].as_text(value) for name, value in request.values.items()}
    rendered = task.file.wordings["default"].compiled.render(values)
    assert rendered.text == "hi|3|1|yes|warm|x; y|pydantic uses this name"
    assert request.given == {"text", "share", "loud", "words"}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("2.0", "2"),
        ("-0.5", "-0.5"),
        ("0.00001", "0.00001"),
        ("1e-7", "0.0000001"),
        ("20000000000000000", "20000000000000000"),
        ("1.5e16", "15000000000000000"),
    ],
)
def test_a_number_reads_as_digits(make_task: Callable[[str], Task], number: str, text: str) -> None:
    task = make_task(ALL_KINDS.replace("type: number, min: 0, max: 1", "type: number"))
    request = task.request_model.model_validate_json(f'{{"text": "hi", "share": {number}}}')
    assert task.file.inputs["share"].as_text(request.values["share"]) == text


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        '"x"',
        "{",
        '{"text": "hi"',
        '{"text": "hi", }',
        '{"text": "\\ud800"}',
        '{"\\ud800": 1, "text": "hi"}',
        '{"text": null}',
        '{"text": 1}',
        '{"text": ["hi"]}',
        '{"text": ""}',
        json.dumps({"text": "x" * 21}),
        '{"text": "hi", "txt": "hi"}',
        '{"text": "hi", "input_text": "hi"}',
        '{"text": "hi", "count": "1"}',
        '{"text": "hi", "count": true}',
        '{"text": "hi", "count": 1.5}',
        '{"text": "hi", "count": 1.0}',
        '{"text": "hi", "count": 11}',
        '{"text": "hi", "count": -1}',
        '{"text": "hi", "count": ' + "9" * 5000 + "}",
        '{"text": "hi", "share": NaN}',
        '{"text": "hi", "share": Infinity}',
        '{"text": "hi", "share": 1e400}',
        '{"text": "hi", "share": "0.5"}',
        '{"text": "hi", "share": true}',
        '{"text": "hi", "loud": 1}',
        '{"text": "hi", "loud": "yes"}',
        '{"text": "hi", "tone": "Warm"}',
        '{"text": "hi", "words": "a"}',
        '{"text": "hi", "words": []}',
        '{"text": "hi", "words": [""]}',
        '{"text": "hi", "words": ["a", 1]}',
        '{"text": "hi", "words": ["\\udfff"]}',
        '{"text": "hi", "words": ["a", "b", "c", "d"]}',
        '{"text": "hi", "words": ["longer"]}',
        '{"text": "hi", "max_tokens": 0}',
        '{"text": "hi", "max_tokens": 1.5}',
        '{"text": "hi", "max_tokens": 2147483648}',
        '{"text": "hi", "max_tokens": null}',
        '{"text": "hi", "temperature": -1}',
        '{"text": "hi", "temperature": NaN}',
        '{"text": "hi", "seed": -1}',
        '{"text": "hi", "seed": 9223372036854775808}',
        '{"text": "hi", "seed": 1.5}',
        '{"text": "hi", "truncate": "true"}',
        '{"text": "hi", "explain": 1}',
        '{"text": "hi", "style": "default"}',
        '{"text": "hi", "calibration": "none"}',
        "[" * 100_000,
    ],
)
def test_what_does_not_fit_is_refused(model: type[TaskRequest], body: str) -> None:
    with pytest.raises(ValidationError):
        model.model_validate_json(body.encode())


@pytest.mark.parametrize("body", [b'{"text": "\xff"}', '{"text": "hi"}'.encode("utf-16"), b"\x1f\x8b\x08\x00"])
def test_bytes_that_are_no_utf8_json_are_refused(model: type[TaskRequest], body: bytes) -> None:
    with pytest.raises(ValidationError):
        model.model_validate_json(body)


@pytest.mark.parametrize("item", [{"text": "\ud800"}, {"text": "hi", "share": float("nan")}, {"text": True}, [], None])
def test_values_of_a_batch_are_as_strict(model: type[TaskRequest], item: Any) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(item)


def test_an_unknown_field_is_named(model: type[TaskRequest]) -> None:
    with pytest.raises(ValidationError) as raised:
        model.model_validate_json('{"text": "hi", "txt": "hi"}')
    assert raised.value.errors()[0]["loc"] == ("txt",)


@pytest.mark.parametrize(
    ("body", "message"), [("{}", "body: Field required"), ('{"body": 1}', "body: Input should be")]
)
def test_an_input_may_be_called_body(make_task: Callable[[str], Task], body: str, message: str) -> None:
    task = make_task(LABELS.replace("text", "body"))
    with pytest.raises(ValidationError) as raised:
        task.request_model.model_validate_json(body)
    error = ValidationFailed.from_pydantic(raised.value.errors())
    assert error.field == "body"
    assert error.message.startswith(message)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(["a"], "at least two"), (["a", "a"], "twice"), (["a", " b"], "white space"), (["a", " "], "white space")],
)
def test_labels_of_a_request(make_task: Callable[[str], Task], labels: list[str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_task(LABELS).request_model.model_validate({"text": "x", "labels": labels})


def test_an_input_that_the_style_does_not_use_is_refused_and_not_ignored(bundled: Any) -> None:
    model = bundled.catalog.get("translate").request_model
    with pytest.raises(ValidationError, match="style 'pairs' doesn't use target"):
        model.model_validate({"text": "Hello.", "style": "pairs", "target": "German"})
    with pytest.raises(ValidationError, match="style 'instruction' doesn't use pairs"):
        model.model_validate({"text": "Hello.", "pairs": ["a = b"]})
    model.model_validate({"text": "Hello.", "style": "pairs", "pairs": ["Hallo. = Hello."]})


def test_no_option_of_a_request_can_be_the_name_of_an_input(bundled: Any) -> None:
    for task in bundled.catalog.tasks:
        fields = task.request_model.model_fields
        assert {name for name in fields if not name.startswith("input_")} <= RESERVED_NAMES


def test_the_schema_shows_inputs_first_with_their_defaults(model: type[TaskRequest]) -> None:
    schema = model.model_json_schema()
    assert list(schema["properties"])[:2] == ["text", "count"]
    assert schema["required"] == ["text"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["count"]["default"] == 3
    assert schema["title"] == camel_case("all-kinds") + "TaskRequest" == "AllKindsTaskRequest"


def test_an_example_has_no_input_that_the_first_style_does_not_use(make_task: Callable[[str], Task]) -> None:
    task = make_task("""\
name: t
summary: T.
inputs:
  text: {type: string, example: Hello.}
  tone: {type: string, default: warm, example: cold}
  pairs: {type: list, default: [a = b], example: [c = d]}
template: "{text} {tone}:"
style: plain
styles: {pairs: {template: "{pairs} {text}:"}}
output: {kind: text}
""")
    example = example_request(task.file)
    assert example == {"text": "Hello.", "tone": "cold"}
    task.request_model.model_validate(example)


def test_every_bundled_task_has_an_example_that_fits(bundled: Any) -> None:
    for task in bundled.catalog.tasks:
        example = example_request(task.file)
        assert example is not None
        task.request_model.model_validate_json(json.dumps(example))
