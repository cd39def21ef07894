"""Errors -> responses: `{"error": {"code", "message", "field"}}`, always valid JSON, never a traceback."""

import json
import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from zeroshot.errors import Overloaded, ZeroshotError

logger = logging.getLogger(__name__)

_HTTP_CODES = {400: "invalid_request", 404: "not_found", 405: "method_not_allowed", 415: "unsupported_media_type"}


class ValidationFailed(ZeroshotError):
    """The body does not fit the schema."""

    status = 422
    code = "validation_error"


class ErrorDetail(BaseModel):
    code: str
    message: str
    field: str | None = None


class ErrorResponse(BaseModel):
    """What every error looks like."""

    error: ErrorDetail


def error_body(error: ZeroshotError) -> dict[str, Any]:
    return {"error": {"code": error.code, "message": _clean(error.message), "field": error.field}}


def from_validation_error(error: ValidationError) -> ValidationFailed:
    """The first thing wrong with a body, with the path of the field and what was expected there."""
    return _first_failure(error.errors(include_url=False, include_context=False, include_input=False))


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route, for the OpenAPI page."""
    return {status: {"model": ErrorResponse} for status in statuses}


def install(app: FastAPI) -> None:
    app.add_exception_handler(ZeroshotError, _on_zeroshot_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected_error)


async def _on_zeroshot_error(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, ZeroshotError):
        raise error
    headers = {}
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(error.retry_after_s)
    elif error.status == 503:
        headers["Retry-After"] = "1"
    return JSONResponse(error_body(error), status_code=error.status, headers=headers)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    return await _on_zeroshot_error(request, _first_failure(error.errors()))


async def _on_http_exception(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    code = _HTTP_CODES.get(error.status_code, "http_error")
    body = {"error": {"code": code, "message": str(error.detail), "field": None}}
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


async def _on_unexpected_error(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse(error_body(ZeroshotError("The server failed on this request.")), status_code=500)


def _first_failure(errors: Sequence[Any]) -> ValidationFailed:
    first = errors[0]
    # Beside field names and list positions, a path holds pydantic's names for the members of a union.
    path = [str(part) for part in first["loc"] if part != "body" and (isinstance(part, int) or part.isidentifier())]
    field = ".".join(path) or None
    if first["type"] == "json_invalid":
        return ValidationFailed("The body is not valid JSON.")
    if not path and first["type"] in ("missing", "model_attributes_type", "model_type", "dict_type"):
        return ValidationFailed("The body must be a JSON object, sent with `Content-Type: application/json`.")
    if first["type"] == "extra_forbidden":
        return ValidationFailed(f"There is no field {field!r} here.", field=field)
    message = first["msg"].removeprefix("Value error, ")
    return ValidationFailed(f"{field}: {message}" if field else message, field=field)


def _clean(message: str) -> str:
    """A message may quote the caller: lone surrogates can't be encoded."""
    return json.loads(json.dumps(message.encode("utf-8", "replace").decode("utf-8")))  # type: ignore[no-any-return]
