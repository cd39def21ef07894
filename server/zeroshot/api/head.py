"""HEAD on everything that has GET (RFC 9110, section 9.3.2), and not on the OpenAPI page."""

from starlette.types import ASGIApp, Receive, Scope, Send


class HeadMiddleware:
    """Plain ASGI. The routes see a GET. The HTTP server, which leaves the body out, sees what was asked."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        seen_by_routes = {**scope, "method": "GET"}
        try:
            await self.app(seen_by_routes, receive, send)
        finally:
            scope["route"] = seen_by_routes.get("route")  # for who counts requests by their routes
