"""Large answers are made piece by piece, beside other work."""

import asyncio
import json
from collections.abc import Iterator

from zeroshot.api.json_answer import JSONAnswer, in_turns


def test_between_two_large_values_others_move() -> None:
    turns = 0

    async def other_work() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def values() -> Iterator[dict[str, int | str]]:
        for _ in range(5):
            yield {"turn": turns, "text": "a" * 2**18}

    async def run() -> bytes:
        other = asyncio.create_task(other_work())
        await asyncio.sleep(0)
        written = await in_turns(values())
        other.cancel()
        return JSONAnswer({"choices": written}).body

    choices = json.loads(asyncio.run(run()))["choices"]
    assert len({choice["turn"] for choice in choices}) == 5
