"""The two formats of a log line."""

import json
import logging
import sys

from hypothesis import given
from hypothesis import strategies as st

from zeroshot.telemetry.logs import JsonFormatter, TextFormatter, printable


def line_for(formatter: logging.Formatter, message: str, error: Exception | None = None, **fields: object) -> str:
    exc_info = None
    if error is not None:
        try:
            raise error
        except Exception:
            exc_info = sys.exc_info()
    record = logging.LogRecord("zeroshot.test", logging.INFO, "file", 1, "%s", (message,), exc_info)
    record.fields = fields
    return formatter.format(record)


@given(st.text(st.characters(), max_size=40))
def test_any_text_stays_on_one_line(text: str) -> None:
    line = line_for(TextFormatter("server"), text, value=text)
    assert line.isprintable()
    assert line.splitlines() == [line]
    read = json.loads(line_for(JsonFormatter("server"), text, value=text))
    assert (read["message"], read["value"]) == (text, text)


@given(st.text(st.characters(), max_size=40))
def test_a_traceback_cannot_pose_as_a_line(text: str) -> None:
    line = line_for(TextFormatter("engine"), "failed", ValueError(text))
    first, *rest = line.split("\n")
    assert first.endswith("engine: failed")
    assert len(rest) > 2
    assert all(row.startswith("  | ") and row.isprintable() for row in rest)
    exception = json.loads(line_for(JsonFormatter("engine"), "failed", ValueError(text)))["exception"]
    assert exception.startswith("Traceback")


def test_what_is_readable_stays_as_it_is() -> None:
    assert printable("naïve 猫 🙂 a=b") == "naïve 猫 🙂 a=b"
    assert printable("a\tb\nc\x1b[0m\u2028\ud800") == r"a\tb\nc\x1b[0m\u2028\ud800"


def test_fields_can_be_told_apart() -> None:
    line = line_for(TextFormatter("server"), "request", route="/tasks/{name}", status=200, note='a b="c"')
    assert line.endswith(r'server: request route=/tasks/{name} status=200 note="a b=\"c\""')
