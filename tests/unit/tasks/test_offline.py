"""Work without a server: on an engine like the server's, by the same settings."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from zeroshot.client import EngineClient
from zeroshot.settings import load_settings
from zeroshot.tasks.offline import local_engine

DEMO = Path(__file__).parents[3] / "model_weights" / "demo"


def test_the_engine_may_take_as_long_to_start_as_a_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []

    async def wait_until_ready(_: EngineClient, timeout_s: float) -> None:
        waited.append(timeout_s)

    async def nothing(_: EngineClient) -> None: ...

    for name, replacement in (("wait_until_ready", wait_until_ready), ("start", nothing), ("stop", nothing)):
        monkeypatch.setattr(EngineClient, name, replacement)

    async def use() -> Any:
        async with local_engine(load_settings(engine_start_timeout_s=1800), DEMO) as (_, client):
            return client.max_queued_seqs

    assert asyncio.run(use()) > 10**6
    assert waited == [1800]
