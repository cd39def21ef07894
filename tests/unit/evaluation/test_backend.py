"""What is asked again of an engine that was lost, and how often."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from zeroshot.errors import EngineRestarting, EngineUnavailable, GenerationFailed, InvalidRequest
from zeroshot.evaluation import backend as backends
from zeroshot.evaluation.backend import InProcessBackend


class LostClient:
    """Its engine is lost under each of the first `num_lost` requests; after `num_starts` no other gets ready."""

    model_name, tokenizer, max_model_len, eos_token_id = "demo", None, 1024, 50256

    def __init__(self, num_lost: int, num_starts: int = 99) -> None:
        self.num_lost, self.num_starts = num_lost, num_starts
        self.request_ids: list[str] = []

    async def wait_until_ready(self, timeout_s: float) -> None:
        if len(self.request_ids) >= self.num_starts:
            raise EngineUnavailable(f"The engine was not ready after {timeout_s:g} s.")

    async def complete(self, request: Any) -> list[Any]:
        self.request_ids.append(request.request_id)
        if len(self.request_ids) <= self.num_lost:
            raise EngineRestarting("The engine ended with exit code -9 and is being restarted.")
        return [SimpleNamespace(prompt_logprobs=["scored"] * 2)]


@pytest.fixture(params=["scorer", "task"])
def ask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """ask(client) -> the answer for one example, by either door to the engine."""

    async def run_item(_task: Any, client: Any, _item: str) -> dict[str, Any]:
        try:
            return {"output": (await client.complete(SimpleNamespace(request_id="")))[0].prompt_logprobs}
        except EngineRestarting as error:
            return error.as_body()

    monkeypatch.setattr(backends, "run_item", run_item)

    def ask(client: Any) -> Any:
        catalog: Any = {"sentiment": None}
        backend = InProcessBackend(client, catalog, max_in_flight=4, start_timeout_s=7)
        if request.param == "task":
            return asyncio.run(backend.task("sentiment", {}))["output"]
        assert backend.scorer is not None
        return asyncio.run(backend.scorer.score([1, 2, 3], 1))

    return ask


def test_an_example_survives_one_lost_engine(ask: Any) -> None:
    client = LostClient(num_lost=1)
    assert ask(client) == ["scored", "scored"]
    assert len(client.request_ids) == 2


def test_an_example_that_loses_two_engines_is_an_error_that_says_so(ask: Any) -> None:
    client = LostClient(num_lost=2)
    with pytest.raises(GenerationFailed, match="lost 2 times while it ran the same example"):
        ask(client)
    assert len(client.request_ids) == 2


def test_nothing_is_asked_of_an_engine_that_does_not_come_back(ask: Any) -> None:
    with pytest.raises(EngineUnavailable, match="after 7 s"):
        ask(LostClient(num_lost=1, num_starts=1))


def test_other_errors_are_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    client = LostClient(num_lost=0)

    async def refuse(request: Any) -> list[Any]:
        client.request_ids.append(request.request_id)
        raise InvalidRequest("too long")

    monkeypatch.setattr(client, "complete", refuse)
    scorer: Any = backends.EngineScorer(client, 7)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        asyncio.run(scorer.score([1, 2, 3], 1))
    assert len(client.request_ids) == 1
