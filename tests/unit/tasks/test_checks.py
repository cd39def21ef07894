"""A mistake in a prompt file gives one message with the file, the line and the mistake."""

import pytest

from zeroshot.errors import PromptFileError
from zeroshot.tasks.checks import parse

GOOD = """\
name: greet
summary: Greet someone.
inputs:
  who: {type: string, max_chars: 100, example: Ann}
  tone: {type: enum, enum: [warm, cold], default: warm}
examples:
  - "Hello {{not a field}}"
template: "Greet {who} in a {tone} way:"
decoding: {temperature: 0, stop: ["\\n"]}
output:
  kind: text
  keep: first_line
"""
LABEL = """\
name: mood
summary: The mood of a text.
inputs:
  text: {type: string}
  labels: {type: list, default: [good, bad]}
template: "{text}\\nMood:"
output:
  kind: label
  labels: labels
"""


def test_a_good_file_is_what_it_says() -> None:
    file, _ = parse("greet.yaml", GOOD.encode())
    assert file.decoding.stop == ("\n",)
    assert file.decoding.temperature == 0
    wording = file.wordings["default"]
    assert wording.compiled.render({"who": "Bo", "tone": "cold"}).text == (
        "Hello {{not a field}}\nGreet Bo in a cold way:"
    )


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("summary:", "sumary:", 2, "sumary: there is no such key"),
        ("summary: Greet someone.\n", "", 1, "summary: this key is missing"),
        ("max_chars: 100", "max_char: 100", 4, "inputs.who.max_char: there is no such key"),
        ("{type: enum, enum: [warm, cold], default: warm}", "{type: enum}", 5, "inputs.tone.enum: this key is missing"),
        ("enum: [warm, cold]", "enum: [warm, 1]", 5, "inputs.tone.enum.1: expected a string"),
        (
            "{type: enum, enum: [warm, cold], default: warm}",
            "\n    type: enum\n    enum: [warm, cold]\n    max_chars: 9",
            8,
            "inputs.tone.max_chars: there is no such key",
        ),
        ("keep: first_line", "keep: second_line", 12, "output.keep: "),
        ("kind: text", "kind: poem", 11, "output.kind: expected one of"),
        ("  kind: text\n", "", 10, "output.kind: this key is missing"),
        ("{type: string, max", "{max", 4, "inputs.who.type: this key is missing"),
        ("type: string", "type: text", 4, "inputs.who.type: expected one of"),
        ("name: greet", "name: Greet!", 1, "name: only lower-case letters"),
        ("name: greet", "name: ../greet", 1, "name: "),
        ("name: greet", "name: yes", 1, "name: expected a string"),
        ("summary: Greet someone.", "summary: 3", 2, "summary: expected a string"),
        ("example: Ann", 'example: "\\ud800"', 4, "this text has a lone surrogate"),
        ("summary: Greet", 'description:\n  "\\ud800"\nsummary: Greet', 3, "this text has a lone surrogate"),
        ("  keep:", '  "\\ud800":', 12, "this text has a lone surrogate"),
        ("  keep:", '  "\\ud800": 1\n  "\\ud800":', 12, "this text has a lone surrogate"),
        ("max_chars: 100", "max_chars: '100'", 4, "inputs.who.max_chars: "),
        ("max_chars: 100", "max_chars: true", 4, "inputs.who.max_chars: "),
        ("temperature: 0", "temperature: -1", 9, "decoding.temperature: "),
        ("temperature: 0", "temperature: .nan", 9, "decoding.temperature: "),
        ("temperature: 0", "top_k: 1.5", 9, "decoding.top_k: "),
        ("temperature: 0", "early_stopping: soon", 9, "decoding.early_stopping: "),
        ("Greet {who}", "Greet {whom}", 8, "template: {whom} is not among the inputs: who, tone"),
        ("Greet {who}", "Greet {who.name}", 8, "template: {who.name} is not a field name"),
        ("Greet {who}", "Greet {who} {", 8, "template: a single '{'"),
        ("Greet {who}", "Greet {option}", 8, "template: {option} needs"),
        ("Greet {who}", "Greet you", 4, "inputs.who: no template uses this input"),
        ('way:"', 'way: "', 8, "template: the template ends with a space"),
        ("  who:", "  seed:", 4, "inputs.seed: this name is taken"),
        ("  who:", "  Who:", 4, "inputs.Who: only lower-case letters"),
        ("  who:", "  yes:", 4, "yes: a key must be a string"),
        ("summary: Greet someone.", "summary: 2026-11-29", 2, "2026-11-29: YAML reads this as a date"),
        ("summary: Greet someone.", "summary: !!binary aGk=", 2, "aGk=: bytes are not supported"),
        ('stop: ["\\n"]', 'stop: "\\n"', 9, "decoding.stop: expected a list"),
        ("{type: string, max_chars: 100, example: Ann}", "string", 4, "inputs.who: expected a mapping"),
        ("example: Ann", f"example: {'A' * 101}", 4, "inputs.who.example: "),
        ("default: warm", "default: hot", 5, "inputs.tone.default: "),
        ("max_chars: 100", "max_chars: 2, min_chars: 3", 4, "inputs.who.min_chars: 3 is more than max_chars, 2"),
        ("template:", "style: plain\ntemplate:", 8, "style: there is only one wording"),
        ("decoding:", "styles: {b: {template: '{who} {tone}'}}\ndecoding:", 9, "styles: "),
        ("decoding:", "style: a\nstyles: {b: {template: '{tone}'}}\ndecoding:", 4, "inputs.who: some styles"),
        ("decoding:", "style: a\nstyles:\n  b: {template: '{x}'}\ndecoding:", 11, "styles.b.template: {x} is not"),
        ("kind: text\n  keep: first_line", "kind: score", 9, "decoding: a score task generates nothing"),
        ("name: greet", "name: greet\nname: again", 2, "name: this key appears twice"),
        ("summary: ", "summary: &x ", 0, ""),
        ("inputs:", "inputs: [", 5, "not valid YAML"),
        ("inputs:", "\tinputs:", 3, "not valid YAML"),
    ],
)
def test_mistakes(old: str, new: str, line: int, message: str) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    if line == 0:
        parse("greet.yaml", text.encode())
        return
    with pytest.raises(PromptFileError) as raised:
        parse("greet.yaml", text.encode())
    where, _, what = raised.value.message.partition(": ")
    assert what.startswith(message), raised.value.message
    file, _, number = where.partition(":")
    assert file == "greet.yaml"
    assert int(number) == line
    assert "\n" not in raised.value.message


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("  labels: labels", "  labels: lables", 9, "output.labels: 'lables' is not an input of type list"),
        ("  labels: labels", "  labels: text", 9, "output.labels: 'text' is not an input of type list"),
        ("  labels: labels\n", "", 7, "output.labels: this key is missing"),
        ("  labels: labels", "  labels: 5", 9, "output.labels: expected a list"),
        ("[good, bad]", "[good]", 5, "inputs.labels.default: expected at least two"),
        ("[good, bad]", "[good, good]", 5, "inputs.labels.default: one of them stands there twice"),
        ("default: [good, bad]", "example: [good, ' bad']", 5, "inputs.labels.example: no white space around them"),
        ("default: [good, bad]", "max_items: 1", 5, "inputs.labels.max_items: a choice needs at least two"),
        ("  labels: labels", "  labels: [one, two]", 5, "inputs.labels: no template uses"),
        ("labels: labels", "labels: labels\n  calibration: maybe", 10, "output.calibration: "),
        ("kind: label", "kind: label\n  keep: all", 9, "output.keep: there is no such key"),
        ("{text}\\nMood:", "Mood of {text}", 0, ""),
    ],
)
def test_mistakes_in_a_label_task(old: str, new: str, line: int, message: str) -> None:
    text = LABEL.replace(old, new, 1)
    if line == 0:
        parse("mood.yaml", text.encode())
        return
    with pytest.raises(PromptFileError) as raised:
        parse("mood.yaml", text.encode())
    assert raised.value.message.startswith(f"mood.yaml:{line}: {message}"), raised.value.message


@pytest.mark.parametrize(
    ("labels", "index_line", "message"),
    [
        ("[good, good]", 8, "'good' appears twice"),
        ("[good, ' bad']", 8, "no white space around a label"),
        ("[good]", 8, "at least two"),
        ("[yes, no]", 8, "expected a string"),
        ("[good, '']", 8, "at least 1 character"),
    ],
)
def test_mistakes_in_fixed_labels(labels: str, index_line: int, message: str) -> None:
    text = LABEL.replace("  labels: {type: list, default: [good, bad]}\n", "").replace(": labels", f": {labels}")
    with pytest.raises(PromptFileError, match=message) as raised:
        parse("mood.yaml", text.encode())
    assert raised.value.message.startswith(f"mood.yaml:{index_line}: output.labels")


def test_something_follows_an_option_whose_rest_is_scored() -> None:
    text = LABEL.replace("{text}\\nMood:", "{text} {option}").replace("kind: label", "kind: choice")
    text = text.replace("  labels: labels", "  options: labels")
    parse("mood.yaml", (text + "  scoring: full\n").encode())
    with pytest.raises(PromptFileError, match=r"mood\.yaml:6: template: nothing follows \{option\}"):
        parse("mood.yaml", (text + "  scoring: partial\n").encode())


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{enum: [2026-11-29, 2026-11-30]}", "2026-11-29: YAML reads this as a date"),
        ("{const: !!binary aGk=}", "bytes are not supported"),
        ("{enum: !!set {a, b}}", "sets are not supported"),
        ("{type: object, properties: {no: {type: boolean}}}", "no: a key must be a string"),
        ("{type: object, properties: {1: {type: boolean}}}", "1: a key must be a string"),
    ],
)
def test_a_schema_holds_what_json_holds(schema: str, message: str) -> None:
    text = LABEL[: LABEL.index("  kind")].replace("  labels: {type: list, default: [good, bad]}\n", "")
    with pytest.raises(PromptFileError) as raised:
        parse("mood.yaml", f"{text}  kind: json\n  schema: {schema}\n".encode())
    assert raised.value.message.startswith("mood.yaml:8: "), raised.value.message
    assert message in raised.value.message


def test_a_calibration_without_its_means_is_refused() -> None:
    text = LABEL.replace("{text}\\nMood:", "Mood of {text}").replace(": labels\n", ": labels\n  calibration: pmi_dc\n")
    with pytest.raises(PromptFileError, match="the means for none, contextual only"):
        parse("mood.yaml", text.encode())
    parse("mood.yaml", (text + "  premise: 'The mood is'\n").encode())


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", 1),
        (b"just text", 1),
        (b"- a\n- b\n", 1),
        (b"name: x\nsummary: \xff\xfe\n", 2),
        (b"a: &a [*a]\n", 1),
        (b"1: 2\n", 1),
        (b"? [a]\n: b\n", 1),
        (b"x: 2024-99-99\n", 1),
        (b"a: !!python/object/apply:os.system ['echo']\n", 1),
        (b"[" * 1500, 1),
        (b'x: !!int ""\n', 1),
        (b"x: !!bool maybe\n", 1),
        (b"x: !!timestamp soon\n", 1),
        (b'x: "\\U99999999"\n', 1),
        (b"name: a\n---\nname: b\n", 2),
    ],
)
def test_what_is_no_prompt_file_at_all(content: bytes, line: int) -> None:
    with pytest.raises(PromptFileError) as raised:
        parse("odd.yaml", content)
    assert raised.value.message.startswith(f"odd.yaml:{line}: "), raised.value.message
