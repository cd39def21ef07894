"""`{field}` substitution, and nothing else: no expressions, no attributes, and a value is never parsed.

A template is cut into segments once, when its file is loaded. Rendering joins strings, so no value can change what
the template means. `{{` and `}}` are literal braces.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_FIELD = re.compile(r"[a-z][a-z0-9_]*")


class TemplateError(ValueError):
    """The template's own syntax is wrong."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a template: literal text, or the place of a field."""

    text: str = ""
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """`rendered.text[start:end]` came from `field`, or from the template itself where that is None."""

    start: int
    end: int
    field: str | None


@dataclass(frozen=True, slots=True)
class Rendered:
    text: str
    spans: tuple[Span, ...]
    """In order, without gaps; together they are the whole text. Fields with an empty value have an empty span."""

    def end_of(self, field: str) -> int:
        """The position just after the field's value. Raises KeyError if the template doesn't use it."""
        for span in self.spans:
            if span.field == field:
                return span.end
        raise KeyError(field)


@dataclass(frozen=True, slots=True)
class Template:
    segments: tuple[Segment, ...]

    @classmethod
    def parse(cls, text: str, *, before: str = "") -> "Template":
        """`before` is literal text in front of the template: few-shot examples. Raises TemplateError."""
        segments: list[Segment] = []
        literal, position = before, 0
        for match in _PIECE.finditer(text):
            literal += text[position : match.start()]
            position = match.end()
            piece = match.group()
            if piece in ("{{", "}}"):
                literal += piece[0]
                continue
            name = match.group(1)
            if name is None:
                raise TemplateError(f"a single {piece!r}; write {piece * 2!r} for the character itself")
            if not _FIELD.fullmatch(name):
                raise TemplateError(f"{{{name}}} is not a field name; a field is {{name}}, a brace {{{{ or }}}}")
            if literal:
                segments.append(Segment(text=literal))
            segments.append(Segment(field=name))
            literal = ""
        literal += text[position:]
        if literal:
            segments.append(Segment(text=literal))
        return cls(tuple(segments))

    @property
    def fields(self) -> tuple[str, ...]:
        """Names in order of appearance, repeated where the template repeats them."""
        return tuple(segment.field for segment in self.segments if segment.field is not None)

    @property
    def text_after_last_field(self) -> str:
        """What the prompt always ends with."""
        last = self.segments[-1] if self.segments else Segment()
        return last.text if last.field is None else ""

    def render(self, values: Mapping[str, str]) -> Rendered:
        """Raises KeyError for a field without a value."""
        parts: list[str] = []
        spans: list[Span] = []
        position = 0
        for segment in self.segments:
            part = segment.text if segment.field is None else values[segment.field]
            spans.append(Span(position, position + len(part), segment.field))
            position += len(part)
            parts.append(part)
        return Rendered("".join(parts), tuple(spans))

    def prefix(self, defaults: Mapping[str, str]) -> str:
        """What the prompt begins with for every request that leaves the defaults alone."""
        text = ""
        for segment in self.segments:
            if segment.field is None:
                text += segment.text
            elif segment.field in defaults:
                text += defaults[segment.field]
            else:
                break
        return text
