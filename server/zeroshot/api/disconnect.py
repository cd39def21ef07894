"""Stops work for a client that has gone. The framework does this for streams, not for plain handlers."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request

from zeroshot.errors import ClientDisconnected

T = TypeVar("T")


async def cancel_on_disconnect(request: Request, work: Awaitable[T]) -> T:
    """The work's result. Cancels it, and raises ClientDisconnected, once the client has closed the connection.

    The request's body must have been read before: the next message is then the disconnect.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnected
    finally:
        watcher.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
