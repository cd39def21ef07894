"""Tokenising in threads: no stream waits for it, and no short text for the long ones of others."""

import asyncio
from collections.abc import Callable, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from zeroshot.caller import CALLER

LONG = 2**14
"""Characters, or token ids: so many take some 10 ms."""

_long_work = ThreadPoolExecutor(1, thread_name_prefix="long-texts")

Text = TypeVar("Text", bound=Sized)
Result = TypeVar("Result")


async def in_thread(work: Callable[[Text], Result], text: Text) -> Result:
    """`work(text)`. Of long texts, which may take seconds, one at a time.

    Raises DeadlineExceeded where the caller's time is up before: texts that still wait are not looked at then.
    """
    executor = _long_work if len(text) > LONG else None
    async with CALLER.get().within_deadline():
        return await asyncio.get_running_loop().run_in_executor(executor, work, text)
