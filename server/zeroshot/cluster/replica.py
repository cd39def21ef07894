"""An engine as a replica of a Ray Serve deployment: an `EngineClient` with its own engine process, behind messages."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ray import serve

from zeroshot.caller import CALLER
from zeroshot.client import EngineClient
from zeroshot.cluster.messages import Call, Deltas, Failure, Report, decode_call, encode
from zeroshot.cluster.routing import Route
from zeroshot.errors import EngineUnavailable, ZeroshotError
from zeroshot.model.hub import fetch_model
from zeroshot.model_client import ChoiceDelta
from zeroshot.settings import load_settings
from zeroshot.telemetry import logs


class EngineReplica:
    """Serve makes it, and sends it requests once `__init__` has returned: when the engine has generated a token.

    `route` is for the router, on the ingress's side.
    """

    async def __init__(self, given: dict[str, Any]) -> None:  # type: ignore[misc]  # Serve awaits it
        settings = load_settings(**given)
        logs.configure(settings.log_format, settings.log_level, "replica")
        folder = await asyncio.to_thread(fetch_model, settings.model, settings.weights_dir)
        if settings.speculative_model is not None:
            await asyncio.to_thread(fetch_model, settings.speculative_model, settings.weights_dir)
        self._name = serve.get_replica_context().replica_id.unique_id
        self._client = EngineClient(settings, folder)
        await self._client.start()
        try:
            await self._client.wait_until_ready(settings.engine_start_timeout_s)
        except EngineUnavailable:
            await self._client.stop()
            raise

    async def generate(self, call: bytes, *, route: Route) -> AsyncGenerator[bytes, None]:  # noqa: ARG002
        """Replies: what has come since the last one, in one message. Leaving early aborts the rest."""
        async with aclosing(_Stream(self._client, decode_call(call)).batches()) as batches:
            async for batch in batches:
                yield batch

    async def complete(self, call: bytes, *, route: Route) -> bytes:  # noqa: ARG002
        """One reply, with every choice finished."""
        decoded = decode_call(call)
        CALLER.set(decoded.caller())
        try:
            return encode(Deltas(list(await self._client.complete(decoded.request))))
        except ZeroshotError as error:
            return encode(Failure.of(error))

    async def report(self) -> bytes:
        client = self._client
        return encode(Report(self._name, client.status, client.engines, client.num_restarts, client.stats))

    def check_health(self) -> None:
        """Serve replaces a replica that fails three checks in a row: its supervisor can't get an engine to run."""
        if self._client.status != "ready":
            raise EngineUnavailable(f"The engine of {self._name} is {self._client.status}.")

    async def __del__(self) -> None:
        """Serve awaits it when the replica has been drained."""
        client = getattr(self, "_client", None)
        if client is not None:
            await client.stop()


class _Stream:
    """One call. Deltas that come while the last batch is on its way are sent together: messages are the cost here."""

    def __init__(self, client: EngineClient, call: Call) -> None:
        self._client, self._call = client, call
        self._deltas: list[ChoiceDelta] = []
        self._has_news = asyncio.Event()

    async def batches(self) -> AsyncGenerator[bytes, None]:
        task = asyncio.create_task(self._collect())
        task.add_done_callback(lambda _: self._has_news.set())
        try:
            while not (task.done() and not self._deltas):
                await self._has_news.wait()
                self._has_news.clear()
                deltas, self._deltas = self._deltas, []
                if deltas:
                    yield encode(Deltas(deltas))
            try:
                task.result()
            except ZeroshotError as error:
                yield encode(Failure.of(error))
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _collect(self) -> None:
        CALLER.set(self._call.caller())
        stream = self._client.generate(self._call.request, is_patient=self._call.is_patient)
        async with aclosing(stream) as deltas:
            async for delta in deltas:
                self._deltas.append(delta)
                self._has_news.set()
