"""Refuses a body that is too large, before it is in memory or made into objects, and one that comes too slowly."""

import asyncio
from collections import Counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zeroshot.api.errors import error_response
from zeroshot.caller import CALLER
from zeroshot.errors import Overloaded, RequestTimeout, RequestTooLarge, ZeroshotError

_MAX_BODIES = 64
"""How many of the largest size may be in memory at once: those that are still coming and those being answered."""
_SMALL_BODY_BYTES = 2**16
"""This much of each body doesn't count. uvicorn reads as much of every connection anyway, and small bodies thus always
find room, however many large ones there are."""
_RETRY_AFTER_S = 5
_SEPARATORS = (b",", b"[", b"{")
MAX_SEPARATORS = 2**19
"""Each may stand for an object that Python makes of the JSON: 4 MB of empty lists take 0.4 s, in which nothing else
moves. Those in texts count too. It is as many as the longest text to tokenise has characters, and twice as many as
token ids are read in prompts.
"""


class BodyLimitMiddleware:
    """Plain ASGI. Counts what arrives, so a missing or wrong Content-Length makes no difference.

    Where there are several callers, one may have half at most of what is in memory: as with sequences (`admission.py`).
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, timeout_s: float, num_callers: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.timeout_s = timeout_s
        max_bytes = _MAX_BODIES * max_body_bytes
        self._held = _HeldBytes(max_bytes, max_bytes // 2 if num_callers > 1 else max_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and len(declared) < 20 and int(declared) <= self.max_body_bytes:
            deadline = asyncio.get_running_loop().time() + self.timeout_s
            body = _Body(receive, send, self.max_body_bytes, deadline, self._held)
            try:
                await self.app(scope, body.receive, body.send)
            finally:
                body.release()
            refusal = body.refusal if not body.is_answered else None
        else:
            refusal = _too_large(self.max_body_bytes)
        if refusal is not None:
            await error_response(scope, refusal, {"Connection": "close"})(scope, receive, send)


class _HeldBytes:
    """Counts what large bodies take of the memory, in all and for each caller."""

    def __init__(self, max_in_all: int, max_of_one: int) -> None:
        self._max_in_all, self._max_of_one = max_in_all, max_of_one
        self._in_all = 0
        self._of: Counter[bytes] = Counter()

    def add(self, caller: bytes, num_bytes: int) -> bool:
        """Whether there is room for them: they count in any case, until they are taken off again."""
        self._in_all += num_bytes
        self._of[caller] += num_bytes
        if not self._of[caller]:
            del self._of[caller]
        return self._in_all <= self._max_in_all and self._of[caller] <= self._max_of_one


class _Body:
    """One request's channels. To the app, a body that is refused looks like a client that has gone."""

    def __init__(self, receive: Receive, send: Send, max_bytes: int, deadline: float, held: _HeldBytes) -> None:
        self._receive, self._send = receive, send
        self._max_bytes, self._deadline = max_bytes, deadline
        self._num_bytes = self._num_separators = 0
        self._held, self._num_held, self._caller = held, 0, CALLER.get().cache_salt
        self._is_complete = False
        self.is_answered = False
        self.refusal: ZeroshotError | None = None

    async def receive(self) -> Message:
        if self._is_complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            return self._refuse(RequestTimeout("The body came too slowly."))
        piece = message.get("body", b"")
        self._num_bytes += len(piece)
        self._num_separators += sum(map(piece.count, _SEPARATORS))
        self._is_complete = not message.get("more_body", False)
        if self._num_bytes > self._max_bytes:
            return self._refuse(_too_large(self._max_bytes))
        num_new = max(0, self._num_bytes - _SMALL_BODY_BYTES) - self._num_held
        self._num_held += num_new
        if num_new and not self._held.add(self._caller, num_new):
            what = "The server holds as many large bodies as it can. Send it again in a moment, or a smaller one."
            return self._refuse(Overloaded(what, retry_after_s=_RETRY_AFTER_S))
        if self._is_complete and self._num_separators > MAX_SEPARATORS:
            return self._refuse(_too_many(self._num_separators))
        return message

    def release(self) -> None:
        """Call once the request has been answered."""
        self._held.add(self._caller, -self._num_held)

    async def send(self, message: Message) -> None:
        if self.refusal is None or self.is_answered:
            self.is_answered = True
            await self._send(message)

    def _refuse(self, error: ZeroshotError) -> Message:
        self.refusal = error
        self._is_complete = True
        return {"type": "http.disconnect"}


def _too_large(max_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(f"The body is larger than {max_bytes} bytes.")


def _too_many(num_separators: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"The body has {num_separators} commas and opening brackets: at most {MAX_SEPARATORS} are read. "
        "Send it in parts."
    )
