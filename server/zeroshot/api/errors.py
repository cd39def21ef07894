"""Errors -> responses: in the shape its surface promises, always valid JSON, never a traceback."""

import logging
from types import UnionType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zeroshot.api import envelopes
from zeroshot.api.envelopes import OpenAIErrorResponse, TGIErrorResponse, envelope_for
from zeroshot.errors import ClientDisconnected, Overloaded, ValidationFailed, ZeroshotError
from zeroshot.tasks.results import ErrorResponse
from zeroshot.telemetry.record import CURRENT_RECORD, REQUEST_ID_HEADER, note_error

logger = logging.getLogger(__name__)

_MAX_SHOWN_PATH = 200
_HTTP_CODES = {400: "invalid_request", 404: "not_found", 405: "method_not_allowed", 415: "unsupported_media_type"}


class HttpError(ZeroshotError):
    """An error of the framework: no such path, no such method."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = _HTTP_CODES.get(status, "http_error")


def documented(
    *statuses: int | str, model: type[BaseModel] | UnionType = ErrorResponse
) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route, for the OpenAPI page."""
    return {status: {"model": model} for status in statuses}


_EVERYWHERE = (401, 403, 408, 413, 429, 503)
"""What the layers around every route can answer."""
ERRORS_EVERYWHERE = documented(*_EVERYWHERE)
OPENAI_ERRORS = documented(400, 401, 403, 404, 408, 413, 429, 500, 503, 504, "4XX", model=OpenAIErrorResponse)
TGI_ERRORS_EVERYWHERE = documented(*_EVERYWHERE, model=TGIErrorResponse)
TGI_ERRORS = TGI_ERRORS_EVERYWHERE | documented(422, 424, 504, model=TGIErrorResponse)


def install(app: FastAPI) -> None:
    app.add_exception_handler(ZeroshotError, _on_zeroshot_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_unexpected_error)


class UnexpectedErrorMiddleware:
    """Plain ASGI. Answers a request that a mistake of ours ended, inside of the layers that put headers on each answer.

    The framework does it outside of all layers, which is left for what goes wrong in those.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def noted_send(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, noted_send)
        except Exception as error:
            if has_begun:  # too late for an answer: it breaks off, and the framework logs why
                raise
            answer = await _on_unexpected_error(Request(scope), error)
            await answer(scope, receive, send)


def error_response(scope: Scope, error: ZeroshotError, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer that says what went wrong, and when to try again where that helps."""
    note_error(error.code)
    headers = dict(headers or {})
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(error.retry_after_s)
    elif error.status == 503:
        headers["Retry-After"] = "1"
    status, body = envelope_for(scope)(error)
    return JSONResponse(body, status_code=status, headers=headers)


async def _on_zeroshot_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, ZeroshotError):
        raise error
    return error_response(request.scope, error)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    if isinstance(error.body, dict) and "inputs" in error.body and request.url.path == "/generate":
        envelopes.use(request.scope, envelopes.tgi)
    # FastAPI puts "body" before each path, which may also be the name of a task's input.
    errors = [one | {"loc": one["loc"][1:]} for one in error.errors()]
    return error_response(request.scope, ValidationFailed.from_pydantic(errors))


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    return error_response(request.scope, HttpError(error.status_code, _message(error, request)), headers)


def _message(error: HTTPException, request: Request) -> str:
    """The framework's own words name no path and no method, and don't say why a body can't be read."""
    path = request.url.path[:_MAX_SHOWN_PATH]
    match error.status_code:
        case 400:
            return "The body can't be read as JSON: it is compressed, not in UTF-8, nested too deep, or full of digits."
        case 404:
            return f"There is nothing at {path}. GET /docs shows what there is."
        case 405:
            return f"{path} takes no {request.method}, only {(error.headers or {}).get('Allow', 'other methods')}."
    return str(error.detail)


async def _on_disconnect(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    """In the middle of a body. Nobody reads this, but it is no failure of ours."""
    return error_response(request.scope, ClientDisconnected())


async def _on_unexpected_error(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    # For an answer outside of `observe`, which puts the id on every other one.
    record = CURRENT_RECORD.get()
    headers = {REQUEST_ID_HEADER: record.request_id} if record else {}
    return error_response(request.scope, ZeroshotError("The server failed on this request."), headers)
