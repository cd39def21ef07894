"""Work without a server: on an engine like the server's, by the same settings."""

import asyncio
import json
import resource
from pathlib import Path
from typing import Any

import pytest

from zeroshot.client import EngineClient
from zeroshot.errors import InvalidRequest
from zeroshot.settings import load_settings
from zeroshot.tasks import offline
from zeroshot.tasks.offline import local_engine, run_file

DEMO = Path(__file__).parents[3] / "model_weights" / "demo"


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No engine is started; how long it would be waited for."""
    waits_s: list[float] = []

    async def wait_until_ready(_: EngineClient, timeout_s: float) -> None:
        waits_s.append(timeout_s)

    async def nothing(_: EngineClient) -> None: ...

    for name, replacement in (("wait_until_ready", wait_until_ready), ("start", nothing), ("stop", nothing)):
        monkeypatch.setattr(EngineClient, name, replacement)
    return waits_s


def test_the_engine_may_take_as_long_to_start_as_a_servers(waited: list[float]) -> None:
    async def use() -> Any:
        async with local_engine(load_settings(engine_start_timeout_s=1800), DEMO) as (_, client):
            return client.max_queued_seqs

    assert asyncio.run(use()) > 10**6
    assert waited == [1800]


@pytest.mark.parametrize("pairs", [["text=a", "text=b"], ["text=a", "labels=" + "[" * 100_000]])
def test_inputs_that_can_be_none_are_refused_by_name(waited: list[float], pairs: list[str]) -> None:
    try:
        refused = asyncio.run(offline.run_once(load_settings(), DEMO, "classify", pairs))["error"]["field"]
    except InvalidRequest as error:
        refused = error.field
    assert refused == pairs[1].partition("=")[0]
    assert waited == []


def test_a_full_disk_is_said_and_the_next_run_goes_on(
    waited: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(f'{{"text": "{number}"}}\n' for number in range(100)))

    async def run_item(_: Any, __: Any, item: bytes) -> dict[str, Any]:
        return {"output": json.loads(item)["text"] * 100}

    monkeypatch.setattr(offline, "run_item", run_item)

    def run() -> int:
        return asyncio.run(run_file(load_settings(), DEMO, "sentiment", source, target, lambda *_: None))

    earlier = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, earlier[1]))
    try:
        with pytest.raises(InvalidRequest, match=r"out\.jsonl can't be written: File too large"):
            run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, earlier)
    assert target.stat().st_size == 5000
    assert run() == 0
    assert [json.loads(line)["output"] for line in target.read_text().splitlines()] == [
        str(n) * 100 for n in range(100)
    ]
