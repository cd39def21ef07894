"""Server-sent events (WHATWG HTML, section 9.2): one `data:` line of JSON an event, `[DONE]` last."""

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi.responses import StreamingResponse

from zeroshot.errors import ZeroshotError

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"


async def event_stream(events: AsyncGenerator[dict[str, Any], None]) -> StreamingResponse:
    """A streaming response. An error before the first event is raised and so answered with its own status.

    Later ones become an error event. The stream always ends with `[DONE]`, so a client can tell it from a broken one.
    """
    first = await anext(events)
    return StreamingResponse(
        _encode(first, events),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _encode(first: dict[str, Any], events: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        yield _event(first)
        try:
            async for event in events:
                yield _event(event)
        except ZeroshotError as error:
            yield _event(error.as_body())
        except Exception:
            logger.exception("a stream failed")
            yield _event(ZeroshotError("The server failed on this request.").as_body())
        yield DONE


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False, allow_nan=False).encode() + b"\n\n"
