"""The client's side of an engine process, without HTTP."""

import asyncio
from pathlib import Path

from zeroshot.client import EngineClient
from zeroshot.settings import load_settings

DEMO = Path(__file__).parents[2] / "model_weights" / "demo"


def test_it_may_be_stopped_twice() -> None:
    async def run() -> None:
        client = EngineClient(load_settings(), DEMO)
        await client.start()
        await client.stop()
        await client.stop()

    asyncio.run(run())
