"""The three shapes an error can have on the wire: our own, OpenAI's under `/v1`, TGI's on TGI's routes."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from starlette.types import Scope

from zeroshot.errors import Overloaded, UnknownModel, ZeroshotError

Envelope = Callable[[ZeroshotError], tuple[int, dict[str, Any]]]
"""An error's HTTP status and JSON body."""

_TGI_PATHS = frozenset({"/", "/generate_stream", "/info"})


class OpenAIErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIErrorResponse(BaseModel):
    """What every error under `/v1` looks like."""

    error: OpenAIErrorDetail


class TGIErrorResponse(BaseModel):
    """What every error on TGI's routes looks like."""

    error: str
    error_type: str


def own(error: ZeroshotError) -> tuple[int, dict[str, Any]]:
    return error.status, error.as_body()


_OPENAI_FIELDS = {"num_beams": "n"}
"""Fields that have another name under `/v1` than in the engine."""


def openai(error: ZeroshotError) -> tuple[int, dict[str, Any]]:
    """OpenAI knows no 422: a body that doesn't fit its schema is a 400."""
    status = 400 if error.status == 422 else error.status
    if status >= 500:
        kind = "server_error"
    else:
        kind = "rate_limit_error" if isinstance(error, Overloaded) else "invalid_request_error"
    code = "model_not_found" if isinstance(error, UnknownModel) else error.code
    param = _OPENAI_FIELDS.get(error.field or "", error.field)
    detail = OpenAIErrorDetail(message=error.printable_message, type=kind, param=param, code=code)
    return status, OpenAIErrorResponse(error=detail).model_dump()


def tgi(error: ZeroshotError) -> tuple[int, dict[str, Any]]:
    """TGI's statuses: 422 for bad input, 424 for a failed generation."""
    status, kind = {
        400: (422, "validation"),
        401: (401, "authentication"),
        422: (422, "validation"),
        429: (429, "overloaded"),
        500: (424, "generation"),
        503: (503, "unhealthy"),
        504: (504, "timeout"),
    }.get(error.status, (error.status, "validation"))
    return status, TGIErrorResponse(error=error.printable_message, error_type=kind).model_dump()


def envelope_for(scope: Scope) -> Envelope:
    """The shape for a request: the one its handler has set (`use`), else that of its path."""
    chosen: Envelope | None = scope.get("state", {}).get("envelope")
    if chosen is not None:
        return chosen
    path: str = scope["path"]
    if path == "/v1" or path.startswith("/v1/"):
        return openai
    return tgi if path in _TGI_PATHS else own


def use(scope: Scope, envelope: Envelope) -> None:
    """Errors of this request have this shape from now on, whatever its path."""
    scope.setdefault("state", {})["envelope"] = envelope
