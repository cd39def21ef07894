"""`/tasks`: what there is, and one typed endpoint for each prompt file.

The routes are generic, because prompt files come and go while the server runs; `zeroshot.tasks.openapi` shows each task
with its own schema. A request is validated against the task as it is at that moment.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.exceptions import HTTPException

from zeroshot.api.disconnect import cancel_on_disconnect
from zeroshot.api.errors import documented
from zeroshot.api.json_answer import JSONAnswer
from zeroshot.api.sse import event_stream
from zeroshot.caller import CALLER, limit_time
from zeroshot.errors import Overloaded, ValidationFailed, ZeroshotError
from zeroshot.model_client import ModelClient
from zeroshot.tasks.catalog import Catalog
from zeroshot.tasks.results import TaskResult, TaskUsage
from zeroshot.tasks.schema import MAX_BATCH_ITEMS, TaskRequest, Timeout, example_request, is_stream, refuse_many_fields
from zeroshot.tasks.scoring import together
from zeroshot.tasks.task import Task
from zeroshot.telemetry.record import note_task
from zeroshot.telemetry.timeline import CANCELLED

router = APIRouter(tags=["tasks"])

_BATCH_CONCURRENCY = 16
_BATCH_PATIENCE_S = 60.0
"""How long an item of a batch waits for room in a full queue. Its caller can't send the item alone again."""
_RETRY_INTERVAL_S = 0.1

TaskName = Annotated[str, Path(description="The task's name, as in GET /tasks.")]


class TaskSummary(BaseModel):
    name: str
    summary: str
    kind: str = Field(description="`text`, `json`, `label`, `choice` or `score`.")
    version: str = Field(description="Changes with the prompt file.")
    url: str = Field(description="POST the inputs here; GET it for the schema.")


class BrokenFile(BaseModel):
    file: str
    message: str = Field(description="The line and the mistake.")
    serving: str | None = Field(description="The task that goes on serving the file's last good version.")


class TaskList(BaseModel):
    tasks: list[TaskSummary]
    errors: list[BrokenFile]


class TaskDetails(TaskSummary):
    prompt_file: dict[str, Any]
    example: dict[str, Any] | None = Field(description="A body to try.")
    request_schema: dict[str, Any]
    response_schema: dict[str, Any]


class BatchBody(BaseModel):
    """Items are validated one by one against the task: a bad one is an error of its own."""

    model_config = ConfigDict(strict=True, extra="forbid")

    _few_fields = model_validator(mode="before")(refuse_many_fields)

    inputs: list[Any] = Field(min_length=1, max_length=MAX_BATCH_ITEMS)
    timeout: Timeout = None


@router.get("/tasks", summary="The tasks, and the prompt files with mistakes in them.")
async def list_tasks(request: Request) -> TaskList:
    catalog: Catalog = request.app.state.catalog
    return TaskList(
        tasks=[TaskSummary(**_summary(task)) for task in catalog.tasks],
        errors=[BrokenFile(file=error.file, message=error.message, serving=error.serving) for error in catalog.errors],
    )


@router.get("/tasks/{name}", summary="A task's prompt file and schemas.", responses=documented(404))
async def get_task(name: TaskName, request: Request) -> TaskDetails:
    task = _task(request, name)
    return TaskDetails(
        **_summary(task),
        prompt_file=task.file.model_dump(mode="json", by_alias=True, exclude_unset=True),
        example=example_request(task.file),
        request_schema=task.request_model.model_json_schema(),
        response_schema=task.response_model.model_json_schema(),
    )


# Not in the schema: `install_task_openapi` puts each task there with its own.
@router.post("/tasks/{name}", include_in_schema=False)
async def run_task(name: TaskName, request: Request) -> Response:
    task = _task(request, name)
    note_task(task.name)
    body = await _json_body(request)
    client: ModelClient = request.app.state.client
    with _counting(task, client):
        inputs = task.request_model.model_validate_json(body)
        if is_stream(inputs):
            limit_time(inputs.timeout)
    if is_stream(inputs):
        return await event_stream(request, _events(task, client, inputs))
    result = await cancel_on_disconnect(request, _run(task, client, inputs))
    return JSONAnswer(_envelope(task) | result.as_body())


@router.post("/tasks/{name}/batch", include_in_schema=False)
async def run_batch(name: TaskName, request: Request) -> Response:
    task = _task(request, name)
    note_task(task.name)
    body = await _json_body(request)
    try:
        batch = BatchBody.model_validate_json(body)
    except ValidationError as error:
        raise ValidationFailed.from_pydantic(error.errors()) from None
    limit_time(batch.timeout)
    client: ModelClient = request.app.state.client
    results = await cancel_on_disconnect(request, _run_all(task, client, batch.inputs))
    fields = TaskUsage.model_fields
    usage = {field: sum(result.get("usage", {}).get(field, 0) for result in results) for field in fields}
    return JSONAnswer(_envelope(task) | {"results": results, "usage": usage})


async def _run_all(task: Task, client: ModelClient, items: list[Any]) -> list[dict[str, Any]]:
    slots = asyncio.Semaphore(_BATCH_CONCURRENCY)

    async def run_one(item: Any) -> dict[str, Any]:
        async with slots:
            await asyncio.sleep(0)  # else nothing moves until all are checked: 0.3 s for items of a thousand mistakes
            try:
                with _counting(task, client, is_item=True):
                    inputs = task.request_model.model_validate(item)
                result = await _run(task, client, inputs, patience_s=_BATCH_PATIENCE_S)
            except ZeroshotError as error:
                return error.as_body()
            return result.as_body()

    return await together(run_one(item) for item in items)


async def _run(task: Task, client: ModelClient, inputs: TaskRequest, *, patience_s: float = 0.0) -> TaskResult:
    with _counting(task, client):
        result = await _run_when_there_is_room(task, client, inputs, patience_s)
    client.metrics.task_answered(task.name, "ok", result.usage.cached_tokens)
    return result


async def _events(task: Task, client: ModelClient, inputs: TaskRequest) -> AsyncGenerator[dict[str, Any], None]:
    """A piece of the output each; the last has what else there is to say, and no text."""
    with _counting(task, client):
        async with aclosing(task.stream(client, inputs)) as parts:
            async for part in parts:
                if isinstance(part, str):
                    yield _envelope(task) | {"output": part}
                else:
                    yield _envelope(task) | part.as_body() | {"output": ""}
                    client.metrics.task_answered(task.name, "ok", part.usage.cached_tokens)


@contextmanager
def _counting(task: Task, client: ModelClient, *, is_item: bool = False) -> Iterator[None]:
    """Counts, for the task, what ends a request without an answer. Pydantic's error becomes ours."""
    try:
        yield
    except ValidationError as error:
        client.metrics.task_answered(task.name, ValidationFailed.code)
        raise ValidationFailed.from_pydantic(error.errors(), is_item=is_item) from None
    except ZeroshotError as error:
        client.metrics.task_answered(task.name, error.code)
        raise
    except (asyncio.CancelledError, GeneratorExit):
        client.metrics.task_answered(task.name, CANCELLED)
        raise


async def _run_when_there_is_room(
    task: Task, client: ModelClient, inputs: TaskRequest, patience_s: float
) -> TaskResult:
    patience_ends = time.monotonic() + patience_s
    while True:
        try:
            return await task.run(client, inputs)
        except Overloaded:
            now, caller = time.monotonic(), CALLER.get()
            if now >= patience_ends:
                raise
            if now >= caller.deadline:
                raise caller.too_late() from None
            await asyncio.sleep(_RETRY_INTERVAL_S)


def _envelope(task: Task) -> dict[str, Any]:
    return {"task": task.name, "version": task.version}


def _task(request: Request, name: str) -> Task:
    catalog: Catalog = request.app.state.catalog
    return catalog.get(name)


async def _json_body(request: Request) -> bytes:
    """Refuses what isn't declared as JSON: a web page elsewhere can send forms here, but not JSON."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(415, "Send the inputs as JSON, with the header Content-Type: application/json.")
    return await request.body()


def _summary(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "summary": task.file.summary,
        "kind": task.file.output.kind,
        "version": task.version,
        "url": f"/tasks/{task.name}",
    }
