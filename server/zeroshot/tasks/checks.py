"""One prompt file, read and checked: a `PromptFile`, or PromptFileError with one message: file, line, mistake."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from zeroshot.errors import InvalidRequest, PromptFileError, most_telling
from zeroshot.tasks.decoding import grammar_of
from zeroshot.tasks.inputs import ListInput, StringInput
from zeroshot.tasks.prompt_file import (
    OPTION_FIELD,
    RESERVED_NAMES,
    ChoiceOutput,
    Decoding,
    JSONOutput,
    LabelOutput,
    PromptFile,
    TextOutput,
)
from zeroshot.tasks.schema import input_type
from zeroshot.tasks.template import TemplateError
from zeroshot.tasks.yaml_source import YamlPath, YamlSource
from zeroshot.text.grammar_check import mistake_in

_MAX_FILE_BYTES = 256 * 1024
_BOUNDS = (("min", "max"), ("min_chars", "max_chars"), ("min_items", "max_items"))
_OF_DRAWING = ("temperature", "top_k", "top_p", "min_p", "typical_p")
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def shown_name(path: Path) -> str:
    """The file's name as it can be written into an answer: bytes that are not UTF-8 as escapes."""
    return os.fsencode(path.name).decode("utf-8", errors="backslashreplace")


def read(path: Path) -> bytes:
    """Raises PromptFileError where the file can't be read."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise PromptFileError(f"{shown_name(path)}: can't be read: {error.strerror}") from None
    if len(content) > _MAX_FILE_BYTES:
        raise PromptFileError(f"{shown_name(path)}: larger than {_MAX_FILE_BYTES} bytes")
    return content


def version_of(content: bytes) -> str:
    """A short name for exactly this content."""
    return hashlib.sha256(content).hexdigest()[:12]


def parse(file: str, content: bytes) -> tuple[PromptFile, YamlSource]:
    """Check one file's content; `file` is its name in messages. Raises PromptFileError."""
    source = YamlSource.parse(file, content)
    try:
        prompt_file = PromptFile.model_validate(source.value)
    except ValidationError as error:
        raise _first_mistake(source, error) from None
    for place, message in _mistakes(prompt_file):
        raise source.mistake(place, message)
    return prompt_file, source


def _first_mistake(source: YamlSource, error: ValidationError) -> PromptFileError:
    first = most_telling(error.errors(include_url=False))
    place, context = _in_the_file(first["loc"]), first.get("ctx", {})
    match first["type"]:
        case "extra_forbidden":
            return source.mistake(place, "there is no such key")
        case "missing":
            return source.mistake(place, "this key is missing")
        case "union_tag_not_found":
            key = str(context["discriminator"]).strip("'")
            return source.mistake((*place, key), "this key is missing")
        case "union_tag_invalid":
            key = str(context["discriminator"]).strip("'")
            return source.mistake((*place, key), f"expected one of {context['expected_tags']}")
        case "string_pattern_mismatch" if place == ("name",):
            return source.mistake(
                place, "only lower-case letters, digits, - and _, at most 64, a letter or digit first"
            )
        case "string_pattern_mismatch" if place[-1] == "[key]":
            return source.mistake(place[:-1], "only lower-case letters, digits and _, at most 64, a letter first")
        case "tuple_type":
            return source.mistake(place, "expected a list, [a, b]")
        case "model_attributes_type" | "model_type" | "dict_type":
            return source.mistake(place, "expected a mapping, {key: value}")
        case "string_type":
            return source.mistake(place, 'expected a string; "quote" what YAML reads as a number, yes/no or nothing')
    return source.mistake(place, str(first["msg"]))


def _in_the_file(place: YamlPath) -> YamlPath:
    """Without what pydantic says of its types: an input's or output's kind, of which `enum` is also a key, comes before
    the keys, and the member of a union after the name of the value that is none of them.
    """
    match place:
        case ("inputs", name, kind, *rest) if kind != "[key]":
            return ("inputs", name, *rest)
        case ("output", "label", "labels", _, *rest):
            return ("output", "labels", *rest)
        case ("decoding", "early_stopping", _):
            return ("decoding", "early_stopping")
        case ("output", _, *rest):
            return ("output", *rest)
    return place


def _mistakes(file: PromptFile) -> Iterator[tuple[YamlPath, str]]:
    """Everything the schema can't say, as (place in the file, message). Later checks rely on the earlier ones."""
    for name in file.inputs:
        if name in RESERVED_NAMES:
            yield ("inputs", name), f"this name is taken: {', '.join(sorted(RESERVED_NAMES))} have a meaning already"
    yield from _style_mistakes(file)
    yield from _template_mistakes(file)
    yield from _output_mistakes(file)
    yield from _input_mistakes(file)


def _style_mistakes(file: PromptFile) -> Iterator[tuple[YamlPath, str]]:
    if file.styles and file.style is None:
        yield ("styles",), "with other styles, the first wording needs a name too: add `style: NAME`"
    if file.style is not None and not file.styles:
        yield ("style",), "there is only one wording; remove this key or add `styles`"
    if file.style in file.styles:
        yield ("styles", file.style or ""), "this is the name of the first wording"


def _template_mistakes(file: PromptFile) -> Iterator[tuple[YamlPath, str]]:
    known = set(file.inputs) | ({OPTION_FIELD} if file.scores_inside else set())
    for index, (style, wording) in enumerate(file.wordings.items()):
        place: YamlPath = ("template",) if index == 0 else ("styles", style, "template")
        try:
            fields = wording.compiled.fields
        except TemplateError as error:
            yield place, str(error)
            return
        for name in fields:
            if name == OPTION_FIELD and name not in known:
                yield place, "{option} needs `output: {kind: choice, scoring: partial}` (or full)"
            elif name not in known:
                yield place, f"{{{name}}} is not among the inputs: {', '.join(file.inputs)}"
        if file.scores_inside and fields.count(OPTION_FIELD) != 1:
            yield place, "`scoring` needs {option} in the template, exactly once"
        is_partial = isinstance(file.output, ChoiceOutput) and file.output.scoring == "partial"
        if is_partial and wording.compiled.segments[-1].field == OPTION_FIELD:
            yield place, "nothing follows {option}, and `scoring: partial` scores what does: use full"
        if wording.template.endswith(" "):
            yield place, "the template ends with a space: GPT-2's tokens begin with theirs, so leave it to the answer"


def _input_mistakes(file: PromptFile) -> Iterator[tuple[YamlPath, str]]:
    used = [set(wording.compiled.fields) for wording in file.wordings.values()]
    for name, field in file.inputs.items():
        is_used_in = [name in fields or name == file.options_input for fields in used]
        if not any(is_used_in):
            yield ("inputs", name), "no template uses this input"
        if not all(is_used_in) and field.default is None:
            yield ("inputs", name), "some styles don't use this input: give it a default"
        for low, high in _BOUNDS:
            least, most = getattr(field, low, None), getattr(field, high, None)
            if least is not None and most is not None and least > most:
                yield ("inputs", name, low), f"{least} is more than {high}, {most}"
        if name == file.options_input and isinstance(field, ListInput) and field.max_items < 2:
            yield ("inputs", name, "max_items"), "a choice needs at least two"
        adapter: TypeAdapter[Any] = TypeAdapter(input_type(file, name), config=_STRICT)
        for key in ("default", "example"):
            value = getattr(field, key)
            if value is None:
                continue
            try:
                adapter.validate_python(value)
            except ValidationError as error:
                yield ("inputs", name, key), error.errors()[0]["msg"].removeprefix("Value error, ")
    cut = [name for name, field in file.inputs.items() if isinstance(field, StringInput) and field.truncate]
    if len(cut) > 1:
        yield ("inputs", cut[1], "truncate"), f"{cut[0]} is already the input that is cut"


def _decoding_mistakes(file: PromptFile) -> Iterator[tuple[YamlPath, str]]:
    """Where the text is held to a grammar, or searched for."""
    decoding, is_json = file.decoding, isinstance(file.output, JSONOutput)
    if isinstance(file.output, JSONOutput):
        if "$ref" in _keys(file.output.schema_):
            yield ("output", "schema"), "$ref is not supported here: write the schema out"
        if decoding.regex is not None:
            yield ("decoding", "regex"), "the schema says what the text is: remove this key"
        if decoding.stop:
            yield ("decoding", "stop"), "the schema says where the text ends: remove this key"
    place: YamlPath = ("output", "schema") if is_json else ("decoding", "regex")
    try:
        grammar = grammar_of(file)
        message = None if grammar is None else mistake_in(grammar)
    except InvalidRequest as error:
        message = error.message
    if message is not None:
        yield place, message
    if decoding.num_beams > 1:
        draws = any(getattr(decoding, name) != getattr(Decoding(), name) for name in _OF_DRAWING)
        if draws or decoding.stop:
            yield (
                ("decoding", "num_beams"),
                "beam search draws nothing and knows no stop strings: remove these settings",
            )
        if is_json or decoding.regex is not None:
            yield ("decoding", "num_beams"), "beam search can't be combined with a schema or a regular expression"


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _keys(value: Any) -> set[str]:
    """Of all mappings in a YAML value. The loader allows no cycles, and refuses deep nesting."""
    if isinstance(value, dict):
        return {*value}.union(*(_keys(item) for item in value.values()))
    return set().union(*(_keys(item) for item in value)) if isinstance(value, list) else set()


def _output_mistakes(file: PromptFile) -> Iterator[tuple[YamlPath, str]]:
    output = file.output
    yield from _decoding_mistakes(file)
    if isinstance(output, JSONOutput) and not _is_json(output.example):
        yield ("output", "example"), "there is a number in it that JSON doesn't have"
    if not isinstance(output, TextOutput | JSONOutput) and file.decoding != Decoding():
        yield ("decoding",), f"a {output.kind} task generates nothing: remove this key"
    if not isinstance(output, LabelOutput | ChoiceOutput):
        return
    name = file.options_input
    if name is not None and not isinstance(file.inputs.get(name), ListInput):
        key = "labels" if isinstance(output, LabelOutput) else "options"
        yield ("output", key), f"{name!r} is not an input of type list"
    if isinstance(output, LabelOutput) and isinstance(output.labels, tuple):
        for index, label in enumerate(output.labels):
            if label != label.strip():
                yield ("output", "labels", index), "no white space around a label: the space before it is put there"
            if label in output.labels[:index]:
                yield ("output", "labels", index), f"{label!r} appears twice"
        if len(output.labels) < 2:
            yield ("output", "labels"), "a choice needs at least two labels"
        if output.example is not None and output.example not in output.labels:
            yield ("output", "example"), "this is none of the labels"
    if output.calibration not in file.calibrations:
        yield ("output", "calibration"), f"this task has the means for {', '.join(file.calibrations)} only"
