"""Who waits for a text to be tokenised, and for how long."""

import asyncio
from threading import Event

import pytest

from zeroshot.api.threads import LONG, in_thread
from zeroshot.caller import CALLER, limit_time, new_caller
from zeroshot.errors import DeadlineExceeded


def test_a_text_that_waits_for_others_does_so_until_the_deadline_and_is_dropped_then() -> None:
    has_begun, is_free, seen = Event(), Event(), list[str]()

    def work(text: str) -> None:
        seen.append(text[0])
        has_begun.set()
        is_free.wait(timeout=60)

    async def run() -> None:
        first = asyncio.create_task(in_thread(work, "a" * (LONG + 1)))
        await asyncio.to_thread(has_begun.wait, 60)
        CALLER.set(new_caller(b"", max_timeout_s=60))
        limit_time(0.01)
        with pytest.raises(DeadlineExceeded):
            await in_thread(work, "b" * (LONG + 1))
        is_free.set()
        await first

    asyncio.run(run())
    assert seen == ["a"]
