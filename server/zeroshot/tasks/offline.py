"""Tasks without a server, for `zeroshot task`: on one set of inputs, or on each line of a JSONL file."""

import asyncio
import codecs
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zeroshot.client import EngineClient
from zeroshot.errors import EngineRestarting, InvalidRequest, ValidationFailed, ZeroshotError, most_telling
from zeroshot.model_client import ModelClient
from zeroshot.settings import Settings
from zeroshot.tasks.catalog import Catalog
from zeroshot.tasks.inputs import EnumInput, StringInput
from zeroshot.tasks.schema import TaskRequest
from zeroshot.tasks.task import Task

_IN_FLIGHT = 64
_NO_LIMIT = 2**31
_MAX_TRIES = 3
"""Of a line whose engine has ended, perhaps because of another line: an error that is written stays."""


async def run_once(settings: Settings, model_folder: Path, name: str, pairs: list[str]) -> dict[str, Any]:
    """The result for inputs given as `name=value`, or `{"error": ...}`. Raises InvalidRequest for what is no such pair.

    What doesn't fit the task is said before an engine is started for nothing.
    """
    catalog, client = _unstarted(settings, model_folder)
    task = catalog.get(name)
    item = json.dumps(_body(task, pairs))
    try:
        _request(task, item)
    except ValidationFailed as error:
        return error.as_body()
    async with _running(client, settings.engine_start_timeout_s):
        return await run_item(task, client, item)


async def run_file(
    settings: Settings, model_folder: Path, name: str, source: Path, target: Path, on_done: Callable[[int, int], None]
) -> int:
    """One object of inputs a line -> one result or error a line, in the same order. Returns how many are errors.

    Results already in the target are not computed again, so an interrupted run goes on where it stopped.
    `on_done(lines done, lines in all)` is called as lines are written. Raises InvalidRequest for files that can't be
    read or written, or that don't belong together.
    """
    run = _FileRun.resume(source, target)  # before a model is loaded for nothing
    catalog, client = _unstarted(settings, model_folder)
    task = catalog.get(name)
    async with _running(client, settings.engine_start_timeout_s):
        return await _run_remaining(task, client, run, settings.engine_start_timeout_s, on_done)


@asynccontextmanager
async def local_engine(settings: Settings, model_folder: Path) -> AsyncGenerator[tuple[Catalog, EngineClient], None]:
    """An engine process for work without a server, ready, and the tasks. It is stopped afterwards.

    Its queue has no limit: who gives it work says how much is in flight. Raises EngineUnavailable, PromptFileError.
    """
    catalog, client = _unstarted(settings, model_folder)
    async with _running(client, settings.engine_start_timeout_s):
        yield catalog, client


def _unstarted(settings: Settings, model_folder: Path) -> tuple[Catalog, EngineClient]:
    """For what can be said without an engine. Raises PromptFileError."""
    unbounded = settings.model_copy(update={"max_queued_seqs": _NO_LIMIT, "max_queued_tokens": _NO_LIMIT})
    client = EngineClient(unbounded, model_folder)
    return Catalog(settings.prompts, tokenizer=client.tokenizer, max_model_len=client.max_model_len), client


@asynccontextmanager
async def _running(client: EngineClient, start_timeout_s: float) -> AsyncGenerator[None, None]:
    """Raises EngineUnavailable."""
    await client.start()
    try:
        await client.wait_until_ready(start_timeout_s)
        yield
    finally:
        await client.stop()


def _body(task: Task, pairs: list[str]) -> dict[str, Any]:
    """Strings as they are; anything else as the JSON it is written in."""
    body: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise InvalidRequest(f"{pair!r} is not name=value. {_fields(task)}")
        if name in body:
            raise InvalidRequest(f"{name} is given twice.", field=name)
        declared = task.file.inputs.get(name)
        is_text = isinstance(declared, StringInput | EnumInput)
        try:
            body[name] = value if is_text else json.loads(value)
        except (ValueError, RecursionError):
            body[name] = value
    return body


async def run_item(task: Task, client: ModelClient, item: str | bytes) -> dict[str, Any]:
    """The result of one JSON object of inputs, or `{"error": ...}`."""
    try:
        result = await task.run(client, _request(task, item))
    except ZeroshotError as error:
        return error.as_body()
    return result.as_body()


async def _run_line(task: Task, client: ModelClient, item: bytes, start_timeout_s: float) -> dict[str, Any]:
    """As `run_item`, but again if the engine was lost meanwhile. Raises EngineUnavailable if no other gets ready."""
    for _ in range(_MAX_TRIES - 1):
        result = await run_item(task, client, item)
        if "error" not in result or result["error"]["code"] != EngineRestarting.code:
            return result
        await client.wait_until_ready(start_timeout_s)
    return await run_item(task, client, item)


def _request(task: Task, item: str | bytes) -> TaskRequest:
    """Raises ValidationFailed."""
    try:
        return task.request_model.model_validate_json(item)
    except ValidationError as error:
        raise _refusal(task, error) from None


def _refusal(task: Task, error: ValidationError) -> ValidationFailed:
    """There is no body and no header here, of which messages for HTTP speak, and no page with the task's fields."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return ValidationFailed(first["msg"])
    if first["type"] == "model_type" and not first["loc"]:
        return ValidationFailed("This is not a JSON object of inputs.")
    refusal = ValidationFailed.from_pydantic(error.errors())
    if most_telling(error.errors())["type"] == "extra_forbidden":
        return ValidationFailed(f"{refusal.message} {_fields(task)}", field=refusal.field)
    return refusal


def _fields(task: Task) -> str:
    """What the task takes, its inputs first. A stream is for HTTP."""
    names = [field.alias or name for name, field in task.request_model.model_fields.items()]
    options = [name for name in names if name not in task.file.inputs and name != "stream"]
    return f"{task.name} takes {', '.join([*task.file.inputs, *options])}."


@dataclass(frozen=True, slots=True)
class _FileRun:
    """A run over a file, and how far earlier runs have got with it."""

    items: list[bytes]
    """One JSON object of inputs each."""
    target: Path
    num_done: int
    num_errors: int
    """Of those that are done."""

    @classmethod
    def resume(cls, source: Path, target: Path) -> "_FileRun":
        """Cuts off a line of the target that an earlier run did not finish. Raises InvalidRequest; see `run_file`.

        A target that holds anything but results is left as it is.
        """
        if not target.parent.is_dir():
            raise InvalidRequest(f"There is no folder {target.parent} for {target.name}.")
        if target.exists() and not target.is_file():
            raise InvalidRequest(f"{target} is not a file: what is done is kept there, so that a run can go on.")
        try:
            if target.exists() and target.samefile(source):
                raise InvalidRequest(f"{source} can't be read and written at once: choose another --output.")
            items = [line for line in source.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines() if line.strip()]
            content = target.read_bytes() if target.exists() else b""
        except OSError as error:
            raise InvalidRequest(f"{source} -> {target}: {error}") from None
        num_whole_bytes = content.rfind(b"\n") + 1
        results = _results(content[:num_whole_bytes])
        if results is None or not _begins_a_result(content[num_whole_bytes:]):
            raise InvalidRequest(
                f"{target} is there already and holds something else than results of a task: choose another --output."
            )
        if len(results) > len(items):
            raise InvalidRequest(
                f"{target} has {len(results)} results, {source} only {len(items)} lines: another file's?"
            )
        try:
            with target.open("ab") as file:
                file.truncate(num_whole_bytes)
        except OSError as error:
            raise InvalidRequest(f"{target} can't be written: {error.strerror}") from None
        return cls(items, target, len(results), sum("error" in result for result in results))


def _results(lines: bytes) -> list[dict[str, Any]] | None:
    """One a line; None if anything else is among them."""
    try:
        values = [json.loads(line) for line in lines.splitlines()]
    except (ValueError, RecursionError):
        return None
    return values if all(map(_is_result, values)) else None


def _is_result(value: Any) -> bool:
    return isinstance(value, dict) and ("output" in value or "error" in value)


def _begins_a_result(line: bytes) -> bool:
    """Whether the line may be a result of which the end is missing; also if there is none of it."""
    return any(line.startswith(start[: len(line)]) for start in (b'{"output": ', b'{"error": '))


async def _run_remaining(
    task: Task, client: ModelClient, run: _FileRun, start_timeout_s: float, on_done: Callable[[int, int], None]
) -> int:
    """Append the results that are missing, in order, many in flight. Returns how many of all are errors."""
    num_done, num_errors = run.num_done, run.num_errors
    on_done(num_done, len(run.items))
    running: deque[asyncio.Task[dict[str, Any]]] = deque()
    waiting = iter(run.items[num_done:])
    with run.target.open("ab", buffering=0) as output:
        while True:
            while len(running) < _IN_FLIGHT and (item := next(waiting, None)) is not None:
                running.append(asyncio.create_task(_run_line(task, client, item, start_timeout_s)))
            if not running:
                return num_errors
            result = await running.popleft()
            _append(output, result)
            num_done += 1
            num_errors += "error" in result
            on_done(num_done, len(run.items))


def _append(output: FileIO, result: dict[str, Any]) -> None:
    """Raises InvalidRequest if the disk is full, for example: what is there of the line is cut off by the next run."""
    line = json.dumps(result, ensure_ascii=False).encode() + b"\n"
    try:
        while line:
            line = line[output.write(line) :]
    except OSError as error:
        raise InvalidRequest(
            f"{output.name} can't be written: {error.strerror}. The same command goes on where it stopped."
        ) from None
