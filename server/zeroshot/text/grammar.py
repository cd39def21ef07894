"""Regular expressions and JSON schemas as grammars that generated text can be held to: those of a reasonable size.

Whether llguidance can read one is a question for `grammar_check.py`.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from zeroshot.errors import InvalidRequest
from zeroshot.types import Grammar

MAX_REGEX_CHARS = 2000
MAX_EXPANDED_CHARS = 2000
"""Of a regular expression with its repetitions written out."""
MAX_SCHEMA_BYTES = 16 * 1024
MAX_SCHEMA_DEPTH = 32
MAX_SCHEMA_STRING = 1000
"""Characters of any string in a schema, names included."""

_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose values are schemas by name."""
_VALUES = frozenset({"const", "enum", "default", "example", "examples"})
"""Keywords whose values are no schemas."""

_ESCAPE = r"\\(?:[xuUpP]\{[^}]*\}|.?)"
_CLASS_PART = re.compile(rf"{_ESCAPE}|(?P<open>\[\^?\]?)|(?P<close>\])|.", re.DOTALL)
_REGEX_PART = re.compile(
    rf"{_ESCAPE}|(?P<open>\((?P<verbose>\?[A-Za-z]*x)?)|(?P<close>\))"
    r"|\{\s*(?P<least>\d+)\s*(?:,\s*(?P<most>\d*)\s*)?\}|(?P<again>[*+?])|.",
    re.DOTALL,
)


def regex_grammar(expression: str, *, field: str) -> Grammar:
    """The whole text matches it. Raises InvalidRequest for one that is too large; `grammar_check.py` does the rest."""
    _check_regex(expression, field)
    return Grammar(kind="regex", source=expression, field=field)


def json_grammar(schema: Any, *, field: str) -> Grammar:
    """The text is JSON that fits the schema. Raises InvalidRequest for a schema that is too large or too deep."""
    if not isinstance(schema, dict):
        raise InvalidRequest(f"{field}: a JSON schema must be an object.", field=field)
    if _has_more_bytes(schema, MAX_SCHEMA_BYTES):
        raise schema_too_large(field)
    try:
        source = json.dumps(schema, allow_nan=False)
    except ValueError:
        raise InvalidRequest(f"{field}: the schema has a number that JSON doesn't have.", field=field) from None
    except RecursionError:
        raise _too_deep(field) from None
    if len(source) > MAX_SCHEMA_BYTES:
        raise schema_too_large(field)
    _check_schema(schema, field)
    if '"uniqueItems": false' in source:
        source = json.dumps(_without_unasked(schema))
    return Grammar(kind="json_schema", source=source, field=field)


def _check_regex(expression: str, field: str) -> None:
    if len(expression) > MAX_REGEX_CHARS:
        raise InvalidRequest(
            f"{field}: the regular expression has {len(expression)} characters, at most {MAX_REGEX_CHARS} are read.",
            field=field,
        )
    if any(part["verbose"] for part in _parts(expression)):
        # Its white space and comments can stand anywhere: whoever counts repetitions would have to parse all of it.
        raise InvalidRequest(
            f"{field}: verbose mode, (?x), can't be used: leave white space and comments out of the expression.",
            field=field,
        )
    size = expanded_size(expression)
    if size > MAX_EXPANDED_CHARS:
        raise InvalidRequest(
            f"{field}: with its repetitions written out this regular expression is {min(size, 10**9)} characters long, "
            f"at most {MAX_EXPANDED_CHARS} can be used. Lower the counts in braces.",
            field=field,
        )


def expanded_size(expression: str) -> int:
    """About how many characters the expression has with `x{3}` written as `xxx`, and so on inside out."""
    groups, last = [0], 0  # the sizes of the groups that are open, and of the last thing that can be repeated
    for part in _parts(expression):
        if part["open"]:
            groups.append(0)
            last = 0
        elif part["close"] and len(groups) > 1:
            last = groups.pop()
            groups[-1] += last
        elif part["least"]:
            count = max(int(part["least"]), int(part["most"] or 0), 1)
            groups[-1] += last * (count - 1)
            last *= count
        elif not part["again"]:
            last = 1
            groups[-1] += 1
    return sum(groups)


def _parts(expression: str) -> Iterator[re.Match[str]]:
    """The matches of `_REGEX_PART`, with each class, which may have others in it (`[a[b]]`), as one character."""
    outside, depth = [], 0
    for part in _CLASS_PART.finditer(expression):
        if not depth:
            outside.append("." if part["open"] else part[0])
        if part["open"]:
            depth += 1
        elif part["close"] and depth:
            depth -= 1
    return _REGEX_PART.finditer("".join(outside))


def _without_unasked(schema: Any) -> Any:
    """A copy without `uniqueItems: false`, which some programs write everywhere: llguidance refuses even that."""
    if isinstance(schema, list):
        return [_without_unasked(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    copy: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _BY_NAME and isinstance(value, dict):
            copy[key] = {name: _without_unasked(item) for name, item in value.items()}
        elif key in _VALUES:
            copy[key] = value
        elif not (key == "uniqueItems" and value is False):
            copy[key] = _without_unasked(value)
    return copy


def schema_too_large(field: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: the schema has too many bytes, at most {MAX_SCHEMA_BYTES} are read.", field=field)


def _has_more_bytes(schema: dict[str, Any], limit: int) -> bool:
    """Whether it must have, once it is written: a quick look, where writing a body's 4 MB takes half a second."""
    left: list[Any] = [schema]
    num_bytes = 0
    while left and num_bytes <= limit:
        value = left.pop()
        num_bytes += len(value) if isinstance(value, str | list | dict) else 1
        if num_bytes <= limit and isinstance(value, list | dict):
            left += value
            left += value.values() if isinstance(value, dict) else ()
    return num_bytes > limit


def _too_deep(field: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: the schema is nested deeper than {MAX_SCHEMA_DEPTH} levels.", field=field)


def _check_schema(schema: dict[str, Any], field: str) -> None:
    left: list[tuple[Any, int]] = [(schema, 1)]
    while left:
        value, depth = left.pop()
        if depth > MAX_SCHEMA_DEPTH:
            raise _too_deep(field)
        if isinstance(value, str):
            if len(value) > MAX_SCHEMA_STRING:
                raise InvalidRequest(
                    f"{field}: a string in it has {len(value)} characters, at most {MAX_SCHEMA_STRING} are read.",
                    field=field,
                )
        elif isinstance(value, list):
            left += [(item, depth + 1) for item in value]
        elif isinstance(value, dict):
            if "x-guidance" in value:
                raise InvalidRequest(f"{field}: x-guidance is not supported.", field=field)
            patterns = value.get("patternProperties")
            for pattern in [value.get("pattern"), *(patterns if isinstance(patterns, dict) else ())]:
                if isinstance(pattern, str):
                    _check_regex(pattern, field)
            left += [(key, depth) for key in value]
            left += [(item, depth + 1) for item in value.values()]
