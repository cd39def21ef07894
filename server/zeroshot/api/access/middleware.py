"""The door: decides from the connection's own path and headers, before anything else looks at the request."""

from starlette.types import ASGIApp, Receive, Scope, Send

from zeroshot.api.access.hosts import HostCheck
from zeroshot.api.access.keys import EVERYBODY, ApiKeys, Tenant
from zeroshot.api.access.quota import Quotas
from zeroshot.api.errors import error_response
from zeroshot.caller import CALLER, new_caller
from zeroshot.errors import HostNotAllowed, RateLimited, Unauthorized

_PUBLIC = frozenset({"/health/live", "/health/ready", "/"})
_PUBLIC_FOLDER = "/playground/"
"""The page and its assets: static files. What the page does goes through the API, with the key it asks for."""

_FREE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that never run the model: a page that shows the load, or a collector of metrics, uses up no quota."""


class AccessMiddleware:
    """Plain ASGI. Once there are keys, everything needs one except for what is listed above: deny by default.

    Only `scope["path"]` counts, which is what the router will match: never a URL put together from the Host header.
    """

    def __init__(
        self, app: ASGIApp, *, keys: ApiKeys, hosts: HostCheck | None, quotas: Quotas, max_timeout_s: float
    ) -> None:
        self.app = app
        self._keys = keys
        self._hosts = hosts
        self._quotas = quotas
        self._max_timeout_s = max_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"nothing here speaks {scope['type']}")
        CALLER.set(new_caller(b"", self._max_timeout_s))
        if _is_public(scope):
            await self.app(scope, receive, send)
            return
        try:
            tenant = self._tenant(scope)
        except Unauthorized as error:
            challenge = 'Bearer realm="zeroshot"' + (', error="invalid_token"' if error.is_wrong else "")
            await error_response(scope, error, {"WWW-Authenticate": challenge})(scope, receive, send)
            return
        except HostNotAllowed as error:
            await error_response(scope, error)(scope, receive, send)
            return
        scope.setdefault("state", {})["tenant"] = tenant
        CALLER.set(new_caller(tenant.cache_salt, self._max_timeout_s))
        if scope["method"] in _FREE:
            await self.app(scope, receive, send)
            return
        try:
            with self._quotas.request(tenant):
                await self.app(scope, receive, send)
        except RateLimited as error:
            await error_response(scope, error)(scope, receive, send)

    def _tenant(self, scope: Scope) -> Tenant:
        if self._hosts is not None:
            self._hosts.require(scope)
        if not len(self._keys):
            return EVERYBODY
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if not given:
            raise Unauthorized("This server needs an API key, in the header `Authorization: Bearer <key>`.")
        if len(given) > 1:
            raise Unauthorized("There are several Authorization headers; send one.", is_wrong=True)
        scheme, _, key = given[0].partition(b" ")
        if scheme.lower() != b"bearer":
            raise Unauthorized("The Authorization header must be `Bearer <key>`.", is_wrong=True)
        tenant = self._keys.find(key.strip(b" "))
        if tenant is None:
            raise Unauthorized("This API key is not valid.", is_wrong=True)
        return tenant


def _is_public(scope: Scope) -> bool:
    if scope["method"] not in ("GET", "HEAD"):
        return False
    path: str = scope["path"]
    return path in _PUBLIC or path.startswith(_PUBLIC_FOLDER)
