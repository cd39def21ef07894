"""Log lines, in both processes alike: text for a terminal, or one JSON object a line for a collector.

Whatever a caller sent, a line stays one line and shows no terminal codes. Structured fields come as
`logger.info("...", extra={"fields": {...}})`.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from zeroshot.settings import LogFormat, LogLevel
from zeroshot.telemetry.record import CURRENT_RECORD


def configure(log_format: LogFormat, level: LogLevel, process: str) -> None:
    """All loggers of this process write to its standard error. `process` names it: server or engine."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(process) if log_format == "json" else TextFormatter(process))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it counts every file event


def printable(text: str) -> str:
    """Control characters, line ends, bidi marks and lone surrogates as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class _Formatter(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self.process_name = process

    def time_of(self, record: logging.LogRecord) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def fields_of(self, record: logging.LogRecord) -> dict[str, Any]:
        """With the id of the HTTP request that the line was written for, if there is one."""
        request = CURRENT_RECORD.get()
        fields: dict[str, Any] = getattr(record, "fields", {})
        return fields if request is None else {"request_id": request.request_id} | fields


class JsonFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.time_of(record),
            "level": record.levelname.lower(),
            "process": self.process_name,
            "logger": record.name,
            "message": record.getMessage(),
            **self.fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)  # ASCII: every control character is escaped


class TextFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_text_of(value)}" for name, value in self.fields_of(record).items())
        head = f"{self.time_of(record)} {record.levelname} {self.process_name}: "
        line = head + printable(record.getMessage()) + fields
        if record.exc_info:
            # The bar marks lines that belong to the one above: a message in a traceback can't pose as a line of ours.
            line += "".join(f"\n  | {printable(row)}" for row in self.formatException(record.exc_info).splitlines())
        return line


def _text_of(value: Any) -> str:
    text = str(value)
    return printable(text if text and not set(text) & set(' "=') else json.dumps(text, ensure_ascii=False))
