"""Errors -> responses: `{"error": {"code", "message", "field"}}`, always valid JSON, never a traceback."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from zeroshot.errors import Overloaded, ValidationFailed, ZeroshotError

logger = logging.getLogger(__name__)

_HTTP_CODES = {400: "invalid_request", 404: "not_found", 405: "method_not_allowed", 415: "unsupported_media_type"}


class ErrorDetail(BaseModel):
    code: str
    message: str
    field: str | None = None


class ErrorResponse(BaseModel):
    """What every error looks like."""

    error: ErrorDetail


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
    return JSONResponse(error.as_body(), status_code=error.status, headers=headers)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    return await _on_zeroshot_error(request, ValidationFailed.from_pydantic(error.errors()))


async def _on_http_exception(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    code = _HTTP_CODES.get(error.status_code, "http_error")
    body = {"error": {"code": code, "message": str(error.detail), "field": None}}
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


async def _on_unexpected_error(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse(ZeroshotError("The server failed on this request.").as_body(), status_code=500)
