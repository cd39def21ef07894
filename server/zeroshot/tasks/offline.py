"""Tasks without a server, for `zeroshot task`: on one set of inputs, or on each line of a JSONL file."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zeroshot.client import EngineClient
from zeroshot.errors import InvalidRequest, ValidationFailed, ZeroshotError
from zeroshot.model_client import ModelClient
from zeroshot.settings import Settings
from zeroshot.tasks.catalog import Catalog
from zeroshot.tasks.inputs import EnumInput, StringInput
from zeroshot.tasks.task import Task

_IN_FLIGHT = 64
_START_TIMEOUT_S = 600.0
_NO_LIMIT = 2**31


async def run_once(settings: Settings, model_folder: Path, name: str, pairs: list[str]) -> dict[str, Any]:
    """The result for inputs given as `name=value`, or `{"error": ...}`."""
    async with local_engine(settings, model_folder, task=name) as (catalog, client):
        task = catalog.get(name)
        return await run_item(task, client, json.dumps(_body(task, pairs)))


async def run_file(
    settings: Settings, model_folder: Path, name: str, source: Path, target: Path, on_done: Callable[[int, int], None]
) -> int:
    """See `run_jsonl`."""
    _take_up(source, target)  # raises what is wrong with the files before a model is loaded for nothing
    async with local_engine(settings, model_folder, task=name) as (catalog, client):
        return await run_jsonl(catalog.get(name), client, source, target, on_done)


@asynccontextmanager
async def local_engine(
    settings: Settings, model_folder: Path, *, task: str | None = None
) -> AsyncGenerator[tuple[Catalog, EngineClient], None]:
    """An engine process for work without a server, ready, and the tasks. It is stopped afterwards.

    task: one that must be there: else UnknownTask is raised before the engine starts. Its queue has no limit: who gives
    it work says how much is in flight. Raises EngineUnavailable, PromptFileError.
    """
    client = EngineClient(
        settings.engine_settings(model_folder), max_queued_seqs=_NO_LIMIT, max_queued_tokens=_NO_LIMIT
    )
    catalog = Catalog(settings.prompts, tokenizer=client.tokenizer, max_model_len=client.max_model_len)
    if task is not None:
        catalog.get(task)
    await client.start()
    try:
        await client.wait_until_ready(_START_TIMEOUT_S)
        yield catalog, client
    finally:
        await client.stop()


def _body(task: Task, pairs: list[str]) -> dict[str, Any]:
    """Strings as they are; anything else as the JSON it is written in."""
    body: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise InvalidRequest(f"{pair!r} is not name=value.")
        declared = task.file.inputs.get(name)
        is_text = isinstance(declared, StringInput | EnumInput)
        try:
            body[name] = value if is_text else json.loads(value)
        except ValueError:
            body[name] = value
    return body


async def run_item(task: Task, client: ModelClient, item: str | bytes) -> dict[str, Any]:
    """The result of one JSON object of inputs, or `{"error": ...}`."""
    try:
        result = await task.run(client, task.request_model.model_validate_json(item))
    except ValidationError as error:
        return ValidationFailed.from_pydantic(error.errors()).as_body()
    except ZeroshotError as error:
        return error.as_body()
    return result.model_dump(exclude_unset=True)


async def run_jsonl(
    task: Task, client: ModelClient, source: Path, target: Path, on_done: Callable[[int, int], None]
) -> int:
    """One object of inputs a line -> one result or error a line, in the same order. Returns how many are errors.

    What is in the target already is not done again, so an interrupted run goes on where it stopped.
    `on_done(lines done, lines in all)` is called as lines are written. Raises InvalidRequest if the target can't be
    the beginning of this source's results.
    """
    items, num_done, num_errors = _take_up(source, target)
    on_done(num_done, len(items))
    running: deque[asyncio.Task[dict[str, Any]]] = deque()
    waiting: Iterator[bytes] = iter(items[num_done:])
    with target.open("a", encoding="utf-8") as output:
        while True:
            while len(running) < _IN_FLIGHT and (item := next(waiting, None)) is not None:
                running.append(asyncio.create_task(run_item(task, client, item)))
            if not running:
                return num_errors
            result = await running.popleft()
            output.write(json.dumps(result, ensure_ascii=False) + "\n")
            output.flush()
            num_done += 1
            num_errors += "error" in result
            on_done(num_done, len(items))


def _take_up(source: Path, target: Path) -> tuple[list[bytes], int, int]:
    """The items, how many an earlier run has done, how many of these are errors. Cuts off a line it did not finish.

    Raises InvalidRequest for files that can't be read or written, or don't belong together.
    """
    if not target.parent.is_dir():
        raise InvalidRequest(f"There is no folder {target.parent} for {target.name}.")
    try:
        items = [line for line in source.read_bytes().splitlines() if line.strip()]
        lines = _whole_lines(target)
        results = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{source} -> {target}: {error}") from None
    if len(lines) > len(items):
        raise InvalidRequest(f"{target} has {len(lines)} results, {source} only {len(items)} lines: another file's?")
    return items, len(lines), sum("error" in result for result in results)


def _whole_lines(target: Path) -> list[bytes]:
    content = target.read_bytes() if target.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        target.write_bytes(whole)
    return whole.splitlines()
