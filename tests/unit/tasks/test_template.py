"""Values go in as they are and are never read again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroshot.tasks.template import Template, TemplateError

anything = st.text() | st.sampled_from(
    ["{text}", "{0.__class__}", "{{7*7}}", "${x}", "%s", "{", "}}", "<|endoftext|>", "\\", "{b}{a}"]
)


@given(a=anything, b=anything)
def test_values_are_inserted_verbatim(a: str, b: str) -> None:
    rendered = Template.parse("one {a} two {{x}} {b}{a}").render({"a": a, "b": b})
    assert rendered.text == "one " + a + " two {x} " + b + a


@given(a=anything, b=anything, before=anything)
def test_spans_cover_the_text_and_name_their_fields(a: str, b: str, before: str) -> None:
    values = {"a": a, "b": b}
    rendered = Template.parse("{a}: {b}", before=before).render(values)
    assert "".join(rendered.text[span.start : span.end] for span in rendered.spans) == rendered.text
    for span in rendered.spans:
        if span.field is not None:
            assert rendered.text[span.start : span.end] == values[span.field]


@given(anything)
def test_text_before_the_template_is_never_parsed(before: str) -> None:
    assert Template.parse("{a}", before=before).render({"a": "x"}).text == before + "x"


@given(st.text())
def test_a_text_with_its_braces_doubled_renders_as_itself(text: str) -> None:
    template = Template.parse(text.replace("{", "{{").replace("}", "}}"))
    assert template.render({}).text == text
    assert template.fields == ()


@pytest.mark.parametrize(
    "text", ["{", "}", "a { b", "{a", "a}", "{}", "{ a }", "{a.b}", "{a[0]}", "{a!r}", "{a:>3}", "{0}", "{A}", "{{a}"]
)
def test_anything_but_a_plain_name_is_refused(text: str) -> None:
    with pytest.raises(TemplateError):
        Template.parse(text)


def test_the_prefix_ends_before_the_first_input_without_a_default() -> None:
    template = Template.parse("translate {source} to {target}: {text} =", before="Hello. = Salut.\n")
    defaults = {"source": "English", "target": "French"}
    assert template.prefix(defaults) == "Hello. = Salut.\ntranslate English to French: "
    assert template.prefix({}) == "Hello. = Salut.\ntranslate "
    assert template.text_after_last_field == " ="
