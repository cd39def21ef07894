"""Opens a record for each HTTP request, and counts what came of it. The outermost layer of ours."""

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zeroshot.telemetry.metrics import Metrics
from zeroshot.telemetry.record import RequestRecord, current

REQUEST_ID_HEADER = "X-Request-Id"

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")
_CLIENT_LEFT = 499


class ObserveMiddleware:
    """Plain ASGI: a stream passes through untouched."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = RequestRecord(request_id=_request_id(scope))
        current.set(record)  # never reset: each request has a context of its own
        status = _CLIENT_LEFT

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
            handler, method = _handler(scope), _method(scope)
            self.metrics.http_answered(handler, method, status, record.error_code)


def _request_id(scope: Scope) -> str:
    """The caller's, if it is short and harmless in a header and a log; otherwise a new one."""
    given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _handler(scope: Scope) -> str:
    """The route's template, never the path: a caller can make up as many paths as it likes."""
    route = scope.get("route")
    return getattr(route, "path", None) or "unmatched"


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in _METHODS else "other"
