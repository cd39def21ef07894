"""A server that was told to stop: not ready from that moment on, no new requests, those that run may finish."""

from starlette.types import ASGIApp, Receive, Scope, Send

from zeroshot.api.errors import error_response
from zeroshot.errors import Draining

_ALWAYS_ANSWERED = ("/health", "/metrics")
"""Whoever watches the server wants to see it to its end."""


class Drain:
    """`serving.py` begins it on a signal; `health.py` and the middleware look at it."""

    def __init__(self) -> None:
        self.is_draining = False
        self.num_requests = 0
        """Requests being answered now; those that only watch don't count."""

    def begin(self) -> None:
        self.is_draining = True


class DrainMiddleware:
    """Plain ASGI. Counts requests, and refuses new ones while draining."""

    def __init__(self, app: ASGIApp, *, drain: Drain) -> None:
        self.app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_ALWAYS_ANSWERED):
            await self.app(scope, receive, send)
            return
        if self._drain.is_draining:
            error = Draining("The server is stopping and takes no new requests.")
            await error_response(scope, error, {"Connection": "close"})(scope, receive, send)
            return
        self._drain.num_requests += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._drain.num_requests -= 1
