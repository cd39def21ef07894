"""The tasks on the OpenAPI page: one typed endpoint each, taken from the catalog as it is now."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field, create_model
from pydantic.json_schema import models_json_schema

from zeroshot.tasks.catalog import Catalog
from zeroshot.tasks.prompt_file import ChoiceOutput, JSONOutput, LabelOutput, PromptFile, TextOutput
from zeroshot.tasks.results import ErrorResponse, TaskUsage
from zeroshot.tasks.schema import MAX_BATCH_ITEMS, Timeout, camel_case, can_stream, example_request
from zeroshot.tasks.task import Task

_REF = "#/components/schemas/{model}"
_ERRORS = {
    "400": "The prompt doesn't fit the model's context.",
    "401": "The API key is missing or wrong.",
    "403": "The Host header names another host, and there are no keys.",
    "408": "The body came too slowly.",
    "413": "The body is too large.",
    "415": "The body is not declared as JSON.",
    "422": "The body doesn't fit the task's schema, or its max_tokens not the JSON that was asked for.",
    "429": "The queue is full; try again after the seconds in Retry-After.",
    "500": "The engine failed on this request.",
    "503": "The engine is loading or restarting, or the server is stopping.",
    "504": "Not finished within the request's timeout.",
}
_EXAMPLE_USAGE = {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20, "cached_tokens": 0}


def install_task_openapi(app: FastAPI, catalog: Catalog) -> None:
    """Make `app.openapi()` show the catalog's tasks, also after a reload."""
    build = app.openapi
    shown_generation: int | None = None

    def openapi() -> dict[str, Any]:
        nonlocal shown_generation
        generation = catalog.generation
        if app.openapi_schema is None or shown_generation != generation:
            app.openapi_schema = None
            whole = build()
            paths, schemas = task_openapi(catalog)
            whole.setdefault("paths", {}).update(paths)
            whole.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
            shown_generation = generation
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the page


def task_openapi(catalog: Catalog) -> tuple[dict[str, Any], dict[str, Any]]:
    """OpenAPI `paths` and `components.schemas` of all tasks."""
    tasks = catalog.tasks
    models = {task.name: _models(task) for task in tasks}
    wanted = [model for group in models.values() for model in group]
    refs, definitions = models_json_schema([(model, "validation") for model in wanted], ref_template=_REF)
    paths: dict[str, Any] = {}
    for task in tasks:
        request, response, batch_request, batch_response = (refs[model, "validation"] for model in models[task.name])
        example, answer = example_request(task.file), _example_response(task)
        one = _operation(task, request, response, example, answer, is_streamable=can_stream(task.file))
        several = _operation(task, batch_request, batch_response, {"inputs": [example]} if example else None, None)
        several |= {
            "operationId": f"batch_{task.name}",  # `task_x_batch` would be that of a task x_batch, too
            "summary": f"{task.file.summary.rstrip('.')}: for each of a list of inputs.",
            "description": "Results in the order of the inputs; one that fails has an `error` and stops no other.",
        }
        paths[f"/tasks/{task.name}"] = {"post": one}
        paths[f"/tasks/{task.name}/batch"] = {"post": several}
    return paths, definitions.get("$defs", {})


def _models(task: Task) -> list[type[BaseModel]]:
    """Request and response, for one and for a batch."""
    prefix = camel_case(task.name)
    request, result = task.request_model, task.result_model
    batch_request = create_model(
        f"{prefix}BatchTaskRequest",
        __module__=__name__,
        inputs=(list[request], Field(min_length=1, max_length=MAX_BATCH_ITEMS)),  # type: ignore[valid-type]
        timeout=(Timeout, None),
    )
    batch_response = create_model(
        f"{prefix}BatchTaskResponse",
        __module__=__name__,
        task=(str, ...),
        version=(str, ...),
        results=(list[result | ErrorResponse], ...),  # type: ignore[valid-type]
        usage=(TaskUsage, ...),
    )
    return [request, task.response_model, batch_request, batch_response]


def _operation(
    task: Task, request: Any, response: Any, example: Any, answer: Any, *, is_streamable: bool = False
) -> dict[str, Any]:
    file = task.file
    body = {"schema": request} | ({"example": example} if example is not None else {})
    success = {"schema": response} | ({"example": answer} if answer is not None else {})
    content: dict[str, Any] = {"application/json": success}
    if is_streamable:
        content["text/event-stream"] = {}
    error = {"application/json": {"schema": {"$ref": _REF.format(model=ErrorResponse.__name__)}}}
    errors = {status: {"description": text, "content": error} for status, text in _ERRORS.items()}
    return {
        "tags": ["tasks"],
        "summary": file.summary,
        "description": _description(file),
        "operationId": f"task_{task.name}",
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {"200": {"description": "The answer.", "content": content}, **errors},
    }


def _description(file: PromptFile) -> str:
    wordings = "\n\n".join(
        (f"Style `{style}`:\n" if file.styles else "Prompt:\n") + f"```text\n{wording.template}\n```"
        for style, wording in file.wordings.items()
    )
    return "\n\n".join(part for part in (file.description.strip(), wordings, file.paper) if part)


def _example_response(task: Task) -> dict[str, Any] | None:
    output = task.file.output
    if not isinstance(output, TextOutput | JSONOutput | LabelOutput | ChoiceOutput) or output.example is None:
        return None
    return {"task": task.name, "version": task.version, "output": output.example, "usage": _EXAMPLE_USAGE}
