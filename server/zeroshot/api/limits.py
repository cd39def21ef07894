"""Refuses a body that is too large, before it is read into memory."""

from functools import partial

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zeroshot.api.errors import error_response
from zeroshot.errors import RequestTooLarge


class BodyLimitMiddleware:
    """Plain ASGI. Counts what arrives, so a missing or wrong Content-Length makes no difference."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        error = RequestTooLarge(f"The body is larger than {self.max_body_bytes} bytes.")
        refusal = partial(error_response, scope, error, {"Connection": "close"})
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.max_body_bytes:
            await refusal()(scope, receive, send)
            return
        received = 0
        is_answered = is_too_large = False

        async def counted_receive() -> Message:
            nonlocal received, is_too_large
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_body_bytes:
                is_too_large = True
                return {"type": "http.disconnect"}
            return message

        async def filtered_send(message: Message) -> None:
            nonlocal is_answered
            if not is_too_large or is_answered:
                is_answered = True
                await send(message)

        await self.app(scope, counted_receive, filtered_send)
        if is_too_large and not is_answered:
            await refusal()(scope, receive, send)
