"""The model in this process: an `EngineClient` with its own engine process, and the tasks of the prompts folder."""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from zeroshot.client import EngineClient
from zeroshot.errors import EngineRestarting, GenerationFailed, ZeroshotError
from zeroshot.evaluation.protocol import Run, Scorer
from zeroshot.settings import Settings
from zeroshot.tasks.catalog import Catalog
from zeroshot.tasks.offline import local_engine, run_item
from zeroshot.types import GenerateRequest, SamplingParams, TokenLogprob

T = TypeVar("T")
R = TypeVar("R")

_MAX_TRIES = 2
"""Of what ran when the engine was lost: a crash must not cost an hour's run."""


class EngineScorer:
    """`Scorer` over an EngineClient."""

    def __init__(self, client: EngineClient, start_timeout_s: float) -> None:
        self._client, self._start_timeout_s = client, start_timeout_s
        self.tokenizer = client.tokenizer
        self.max_model_len = client.max_model_len
        self.eos_token_id = client.eos_token_id

    async def score(self, token_ids: Sequence[int], start: int, *, top: int = 0) -> list[TokenLogprob]:
        params = SamplingParams(max_tokens=0, prompt_logprobs=top, prompt_logprobs_start=start)

        async def once() -> list[TokenLogprob]:
            request = GenerateRequest(
                request_id=uuid.uuid4().hex, prompt_token_ids=list(token_ids), sampling_params=params
            )
            return (await self._client.complete(request))[0].prompt_logprobs

        logprobs = await _again_if_lost(self._client, self._start_timeout_s, once)
        if len(logprobs) != len(token_ids) - start:
            raise GenerationFailed(f"The engine scored {len(logprobs)} tokens of {len(token_ids) - start}.")
        return logprobs


class InProcessBackend:
    """`Backend` whose engine is a child of this process."""

    mode = "in process"

    def __init__(self, client: EngineClient, catalog: Catalog, max_in_flight: int, start_timeout_s: float) -> None:
        self._client, self._catalog, self._start_timeout_s = client, catalog, start_timeout_s
        self.model = client.model_name
        self.scorer: Scorer | None = EngineScorer(client, start_timeout_s)
        self.max_in_flight = max_in_flight

    async def task(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        async def once() -> dict[str, Any]:
            result = await run_item(self._catalog.get(name), self._client, json.dumps(body))
            if "error" in result:
                is_lost = result["error"]["code"] == EngineRestarting.code
                raise (EngineRestarting if is_lost else ZeroshotError)(f"task {name}: {result['error']['message']}")
            return result

        return await _again_if_lost(self._client, self._start_timeout_s, once)


async def _again_if_lost(client: EngineClient, start_timeout_s: float, ask: Callable[[], Awaitable[R]]) -> R:
    """What `ask` gives; it is asked again if the engine was lost meanwhile, perhaps because of another example.

    Raises what `ask` raises, EngineUnavailable if no engine gets ready, GenerationFailed if the next one is lost too.
    """
    for _ in range(_MAX_TRIES):
        await client.wait_until_ready(start_timeout_s)
        with suppress(EngineRestarting):
            return await ask()
    raise GenerationFailed(
        f"The engine was lost {_MAX_TRIES} times while it ran the same example, and others beside it."
    )


@asynccontextmanager
async def in_process(settings: Settings, model_folder: Path) -> AsyncGenerator[InProcessBackend, None]:
    """Raises what `local_engine` raises. How much is in flight is for `for_each` to say."""
    async with local_engine(settings, model_folder) as (catalog, client):
        yield InProcessBackend(client, catalog, settings.max_num_seqs, settings.engine_start_timeout_s)


async def for_each(run: Run, items: Sequence[T], function: Callable[[T], Awaitable[R]]) -> list[R]:
    """`function` of every item, many in flight, results in the items' order. The first error stops all the others."""
    slots = asyncio.Semaphore(run.backend.max_in_flight)
    num_done = 0

    async def work(item: T) -> R:
        nonlocal num_done
        async with slots:
            result = await function(item)
        num_done += 1
        run.on_progress(num_done, len(items))
        return result

    run.on_progress(0, len(items))
    tasks = [asyncio.create_task(work(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
