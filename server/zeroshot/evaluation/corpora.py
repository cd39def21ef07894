"""Files of the data folder: found by name, plain or packed, read into records or text. Called by `datasets/`."""

import gzip
import hashlib
import json
import lzma
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from zeroshot.errors import InvalidRequest, ZeroshotError

T = TypeVar("T")

_OPENERS: dict[str, Callable[..., Any]] = {"": open, ".gz": gzip.open, ".xz": lzma.open}


class Skipped(ZeroshotError):
    """An evaluation that can't run here, and why. Becomes a line of the report, never an exit."""

    code = "evaluation_skipped"


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file somebody puts into the data folder. `names`: what it may be called; .gz and .xz are fine after each."""

    names: tuple[str, ...]
    format: str
    origin: str
    """What to look for, in words."""

    @property
    def description(self) -> str:
        return f"{' or '.join(self.names)}: {self.format}. It is {self.origin}."


@dataclass(slots=True)
class DataFolder:
    """`--data DIR`. Remembers a checksum of every file it read, so that a result says what it was measured on."""

    folder: Path
    checksums: dict[str, str] = field(default_factory=dict)

    def path(self, file: DataFile) -> Path:
        """Raises Skipped, saying which file is wanted, in what format, and what to look for."""
        for name in file.names:
            for suffix in _OPENERS:
                path = self.folder / f"{name}{suffix}"
                if path.is_file():
                    return path
        # Not the folder's name: reports are published.
        raise Skipped(f"the data folder has no {file.description}")

    def text(self, file: DataFile) -> str:
        """Raises Skipped if it is missing, InvalidRequest if it is empty or can't be read as UTF-8 text."""
        path = self.path(file)
        opener = _OPENERS.get(path.suffix, open)
        try:
            with opener(path, "rb") as stream:
                content: bytes = stream.read()
            text = content.decode("utf-8")
        except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{path.name} can't be read: {error}. Expected {file.format}.") from None
        if not text.strip():
            raise InvalidRequest(f"{path.name} is empty. Expected {file.format}.")
        self.checksums[path.name] = hashlib.sha256(content).hexdigest()
        return text

    def records(self, file: DataFile, *fields: str) -> list[dict[str, Any]]:
        """The objects of a JSONL file, each with these fields. Raises like `text`, and InvalidRequest with the line."""
        records = []
        # Not splitlines: JSON strings may hold U+2028, which that takes for a line's end.
        for number, line in enumerate(self.text(file).split("\n"), start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                missing = [name for name in fields if name not in record]
            except (ValueError, TypeError):
                raise InvalidRequest(
                    f"{self.path(file).name}:{number}: no JSON object. Expected {file.format}."
                ) from None
            if missing:
                raise InvalidRequest(f"{self.path(file).name}:{number}: no {missing[0]!r}. Expected {file.format}.")
            records.append(record)
        return records


def sample(items: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """All items, or `limit` of them drawn with the seed, in their order: files are often sorted by label or length."""
    if limit is None or limit >= len(items):
        return list(items)
    chosen = random.Random(seed).sample(range(len(items)), limit)  # noqa: S311  # a sample, not a secret
    return [items[index] for index in sorted(chosen)]
