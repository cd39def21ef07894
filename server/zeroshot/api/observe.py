"""Opens a record for each HTTP request, and counts and logs what came of it. The outermost layer of ours."""

import logging
import re
import time
import uuid
from ipaddress import ip_address
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zeroshot.errors import ClientDisconnected
from zeroshot.telemetry.metrics import Metrics
from zeroshot.telemetry.record import CURRENT_RECORD, REQUEST_ID_HEADER, RequestRecord
from zeroshot.telemetry.traces import Tracer

logger = logging.getLogger("zeroshot.access")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")
_UNMATCHED = "unmatched"
_POLLED = ("/health", "/metrics")
_MAX_LOGGED_PATH = 200


class ObserveMiddleware:
    """Plain ASGI: a stream passes through untouched."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracer: Tracer | None) -> None:
        self.app = app
        self.metrics = metrics
        self.tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        record = RequestRecord(_request_id(headers), _method(scope))
        span = self.tracer.start(headers, record.method) if self.tracer else None
        CURRENT_RECORD.set(record)  # never reset: each request has a context of its own
        status = ClientDisconnected.status  # unless an answer begins

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = record.request_id
            await send(message)

        try:
            await self.app(scope, receive, observed_send)
        except Exception:
            status = 500  # answered further out, by the framework's last resort
            raise
        finally:
            route = _route(scope)
            self.metrics.http_answered(route, status, record)
            if self.tracer and span:
                self.tracer.end(span, route, status, record)
            level = logging.DEBUG if route.startswith(_POLLED) else logging.INFO
            if logger.isEnabledFor(level):
                logger.log(level, "request", extra={"fields": _access_fields(scope, route, status, record)})


def _request_id(headers: Headers) -> str:
    """The caller's, if it is short and harmless in a header and a log; otherwise a new one."""
    given = headers.get(REQUEST_ID_HEADER, "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _route(scope: Scope) -> str:
    """The route's template, never the path: a caller can make up as many paths as it likes."""
    return getattr(scope.get("route"), "path", None) or _UNMATCHED


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in _METHODS else "other"


def _access_fields(scope: Scope, route: str, status: int, record: RequestRecord) -> dict[str, Any]:
    """The access line. Nothing in it is text of the request but the path that led nowhere."""
    fields = {
        "client": _client(scope),
        "method": record.method,
        "route": route,
        "path": scope["path"][:_MAX_LOGGED_PATH] if route == _UNMATCHED else None,
        "status": status,
        "duration_ms": round(1000 * (time.monotonic() - record.started_at), 1),
        "task": record.task,
        "prompt_tokens": record.prompt_tokens or None,
        "completion_tokens": record.completion_tokens if record.finish_reason else None,
        "cached_tokens": record.cached_tokens or None,
        "finish_reason": record.finish_reason,
        "error": record.error_code,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _client(scope: Scope) -> str | None:
    """An address: the peer's, or what a proxy on this machine puts into X-Forwarded-For, where any text may stand."""
    client = scope.get("client")
    try:
        return str(ip_address(client[0].partition("%")[0])) if client else None
    except ValueError:
        return None
