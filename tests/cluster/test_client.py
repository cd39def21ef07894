"""What an ingress knows of the replicas. The real client, and replicas that answer as they are told."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zeroshot.cluster.messages import Failure, Report, encode
from zeroshot.errors import Overloaded
from zeroshot.telemetry.record import CURRENT_RECORD, RequestRecord
from zeroshot.types import EngineStats, GenerateRequest, SamplingParams

DEMO = Path(__file__).parents[2] / "model_weights" / "demo"
READY = encode(Report("a", "ready", 1, 0, EngineStats()))


class Replicas:
    """A deployment's handle. Each round of questions has the next of `answers`, and the last one for ever."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self._answers = list(answers)

    def options(self, **_: Any) -> "Replicas":
        return self

    def broadcast(self, _: str) -> "Replicas":
        return self

    def remote(self, _: bytes, **__: Any) -> "asyncio.Future[bytes]":
        reply = asyncio.get_running_loop().create_future()
        reply.set_result(self._answers[0])
        return reply

    async def results_async(self, **_: Any) -> list[bytes]:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return [answer]


@pytest.fixture
def status_after(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """status_after(*answers) -> the client's, when all of them were given."""
    from zeroshot.cluster import client as client_module

    monkeypatch.setattr(client_module, "_REPORT_INTERVAL_S", 0.001)
    monkeypatch.setattr(client_module, "_FIRST_REPORT_TIMEOUT_S", 0.2)

    async def ask(*answers: bytes | Exception) -> str:
        replicas: Any = Replicas(*answers)
        client = client_module.ReplicaClient(replicas, DEMO, max_queued_seqs=1)
        await client.start()
        await client.stop()
        return client.status

    return lambda *answers: asyncio.run(ask(*answers))


@pytest.mark.parametrize("answer", [b"of another version", RuntimeError("no such thing"), TimeoutError()])
def test_an_answer_that_can_not_be_read_is_not_the_last_question(
    status_after: Callable[..., str], answer: bytes | Exception
) -> None:
    assert status_after(answer, READY) == "ready"
    assert status_after(answer) == "loading"


def test_what_full_replicas_turn_away_is_not_aborted() -> None:
    """Its 429 counts as a rejection, as a local engine's does."""
    from zeroshot.cluster.client import ReplicaClient

    async def ask() -> RequestRecord:
        replicas: Any = Replicas(encode(Failure.of(Overloaded("full", retry_after_s=1))))
        client = ReplicaClient(replicas, DEMO, max_queued_seqs=1)
        client.status = "ready"
        record = RequestRecord("id", "POST")
        CURRENT_RECORD.set(record)
        with pytest.raises(Overloaded):
            await client.complete(
                GenerateRequest(request_id="r", prompt_token_ids=[1], sampling_params=SamplingParams())
            )
        return record

    assert asyncio.run(ask()).finish_reasons == {}
