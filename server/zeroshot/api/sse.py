"""Server-sent events (WHATWG HTML, section 9.2): one `data:` line of JSON an event."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from fastapi import Request
from fastapi.responses import StreamingResponse

from zeroshot.api.disconnect import cancel_on_disconnect
from zeroshot.api.envelopes import Envelope, envelope_for
from zeroshot.errors import ZeroshotError
from zeroshot.telemetry.record import note_error

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The answer; in a stream, server-sent events.", "content": {"text/event-stream": {}}}
}
"""The `responses=` of a route that may stream, for the OpenAPI page."""
_LINE_ENDS = {character.encode(): f"\\u{ord(character):04x}".encode() for character in "\x85\u2028\u2029"}
"""Legal in JSON and no line ends in server-sent events, but to httpx, and so to huggingface_hub."""
Events = AsyncGenerator[dict[str, Any], None]


async def event_stream(
    request: Request, events: Events, *, end: bytes = DONE, headers: dict[str, str] | None = None
) -> StreamingResponse:
    """A streaming response. An error before the first event is raised and so answered with its own status.

    Later ones become an error event. The stream always ends with `end`, so a client can tell it from a broken one.
    """
    first = await cancel_on_disconnect(request, anext(events))
    return StreamingResponse(
        _encode(first, events, envelope_for(request.scope), end),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"} | (headers or {}),
    )


async def _encode(first: dict[str, Any], events: Events, envelope: Envelope, end: bytes) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        yield _event(first)
        try:
            async for event in events:
                yield _event(event)
        except ZeroshotError as error:
            yield _error_event(envelope, error)
        except Exception:  # the status has been sent: an event is all that can still say so
            logger.exception("a stream failed")
            yield _error_event(envelope, ZeroshotError("The server failed on this request."))
        if end:
            yield end


def _error_event(envelope: Envelope, error: ZeroshotError) -> bytes:
    note_error(error.code)
    return _event(envelope(error)[1])


def _event(data: dict[str, Any]) -> bytes:
    line = msgspec.json.encode(data)
    if not line.isascii():
        for character, escaped in _LINE_ENDS.items():
            line = line.replace(character, escaped)
    return b"data: " + line + b"\n\n"
