"""The context rule: nothing is cut unless asked, and then the input only, at whole tokens and characters."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroshot.errors import ContextLengthExceeded
from zeroshot.tasks.prompt import Context, fit_prompt, prompt_parts
from zeroshot.tasks.task import Task
from zeroshot.text.tokenizer import Tokenizer

CUT = """\
name: cut
summary: Cut.
inputs:
  text: {{type: string, {truncate}}}
  note: {{type: string, default: short}}
template: "Note: {{note}}. Text: {{text}}\\nEnd:"
output: {{kind: text}}
"""
RIGHT, LEFT, UNSAID = "truncate: right", "truncate: left", "max_chars: 8000"
texts = st.text(alphabet=st.sampled_from("ab é猫🙂👩‍🚀\n{}<|endoftext|>"), min_size=1, max_size=200)


@pytest.mark.parametrize("truncate", [RIGHT, LEFT])
@given(text=texts, reserved=st.integers(1, 30))
def test_what_is_kept_is_one_end_of_the_input(
    make_task: Callable[[str], Task], tokenizer: Tokenizer, truncate: str, text: str, reserved: int
) -> None:
    file = make_task(CUT.format(truncate=truncate)).file
    template = file.wordings["default"].compiled
    values = {"text": text, "note": "short"}
    context = Context(tokenizer, 48, reserved)
    whole = tokenizer.encode(template.render(values).text)
    prompt = fit_prompt(file, template, values, context, truncate=True)
    kept = prompt.values["text"]
    assert len(prompt.token_ids) + reserved <= 48
    assert prompt.rendered.text == f"Note: short. Text: {kept}\nEnd:"
    assert text.startswith(kept) if truncate == RIGHT else text.endswith(kept)
    if len(whole) + reserved <= 48:
        assert prompt.truncated is None
        assert kept == text
    else:
        assert prompt.truncated is not None
        assert prompt.truncated.tokens == len(whole) - len(prompt.token_ids) > 0
        assert len(prompt.token_ids) + reserved >= 48 - 8  # a character has at most a few tokens
        with pytest.raises(ContextLengthExceeded):
            fit_prompt(file, template, values, context, truncate=False)


def test_without_a_declaration_the_longest_input_is_cut(make_task: Callable[[str], Task], tokenizer: Tokenizer) -> None:
    file = make_task(CUT.format(truncate=UNSAID)).file
    template, context = file.wordings["default"].compiled, Context(tokenizer, 48, 4)
    prompt = fit_prompt(file, template, {"text": "one", "note": "word " * 60}, context, truncate=True)
    assert prompt.truncated is not None
    assert prompt.truncated.field == "note"
    assert prompt.values["text"] == "one"


def test_the_error_names_the_input_and_both_numbers(make_task: Callable[[str], Task], tokenizer: Tokenizer) -> None:
    file = make_task(CUT.format(truncate=RIGHT)).file
    template, context = file.wordings["default"].compiled, Context(tokenizer, 48, 10)
    values = {"text": "word " * 50, "note": "short"}
    num_tokens = len(tokenizer.encode(template.render(values).text))
    with pytest.raises(ContextLengthExceeded) as raised:
        fit_prompt(file, template, values, context, truncate=False)
    assert raised.value.field == "text"
    assert str(num_tokens) in raised.value.message
    assert "48" in raised.value.message


def test_an_instruction_that_does_not_fit_is_never_cut(make_task: Callable[[str], Task], tokenizer: Tokenizer) -> None:
    file = make_task(CUT.format(truncate=RIGHT)).file
    template = file.wordings["default"].compiled
    with pytest.raises(ContextLengthExceeded):
        fit_prompt(file, template, {"text": "one", "note": "word " * 60}, Context(tokenizer, 48, 4), truncate=True)


@given(text=texts)
def test_the_parts_of_a_prompt_are_its_text_and_its_tokens(
    make_task: Callable[[str], Task], tokenizer: Tokenizer, text: str
) -> None:
    file = make_task(CUT.format(truncate=RIGHT)).file
    values = {"text": text, "note": "{text}"}
    template, context = file.wordings["default"].compiled, Context(tokenizer, 4096, 1)
    prompt = fit_prompt(file, template, values, context, truncate=False)
    parts = prompt_parts(prompt, tokenizer)
    assert "".join(part.text for part in parts) == prompt.rendered.text
    assert sum(part.tokens for part in parts) == len(prompt.token_ids)
    assert [(part.field, part.text) for part in parts if part.field] == [("note", "{text}"), ("text", text)]


@pytest.mark.parametrize(
    ("output", "reserved", "field"),
    [("kind: text", 48, "max_tokens"), ("kind: score", 1, "text"), ("kind: label, labels: words", 48, "words")],
)
def test_only_a_task_that_generates_has_max_tokens(
    make_task: Callable[[str], Task], tokenizer: Tokenizer, output: str, reserved: int, field: str
) -> None:
    task = CUT.format(truncate=RIGHT).replace("kind: text", output)
    if "words" in output:
        task = task.replace("  note:", "  words: {type: list}\n  note:")
    file = make_task(task).file
    values = {"text": "word " * 50, "note": "short"}
    with pytest.raises(ContextLengthExceeded) as raised:
        fit_prompt(file, file.wordings["default"].compiled, values, Context(tokenizer, 48, reserved), truncate=False)
    assert raised.value.field == field
    assert ("max_tokens" in raised.value.message) == (field == "max_tokens")
    assert ("truncate: true" in raised.value.message) == (reserved < 48)
