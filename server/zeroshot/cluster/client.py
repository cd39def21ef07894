"""`ReplicaClient`: the `ModelClient` of engines that are Ray Serve replicas, wherever they run.

A request whose replica is lost, restarting or full is sent once more, to another replica, unless the caller has part of
its text already: then it ends with EngineRestarting.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing, suppress
from contextvars import Context
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from ray.exceptions import RayActorError, RayError, TaskCancelledError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    ReplicaUnavailableError,
)
from ray.serve.handle import DeploymentHandle

from zeroshot.caller import CALLER, Caller
from zeroshot.cluster.fleet import Fleet
from zeroshot.cluster.messages import Call, Deltas, decode_reply, decode_report, encode
from zeroshot.cluster.routing import Route, prefix_of
from zeroshot.errors import (
    EngineRestarting,
    EngineUnavailable,
    GenerationFailed,
    Overloaded,
    ZeroshotError,
)
from zeroshot.model_client import ChoiceDelta, ModelClient
from zeroshot.telemetry.engine_collector import EngineReport
from zeroshot.telemetry.timeline import Timeline
from zeroshot.types import GenerateRequest, TokenOutput

logger = logging.getLogger(__name__)

T = TypeVar("T")

_REPORT_INTERVAL_S = 1.0
_REPORT_TIMEOUT_S = 5.0
_FIRST_REPORT_TIMEOUT_S = 20.0
_DEADLINE_GRACE_S = 1.0
"""A replica keeps the request's deadline itself; this side's is for replicas that no longer answer."""


class ReplicaClient(ModelClient):
    """`replicas` is the handle of a deployment of `EngineReplica`."""

    def __init__(self, replicas: DeploymentHandle, model_folder: Path, *, max_queued_seqs: int) -> None:
        super().__init__(model_folder, max_queued_seqs=max_queued_seqs)
        self._replicas = replicas
        self._streams = replicas.options(method_name="generate", stream=True)
        self._completions = replicas.options(method_name="complete")
        self._fleet = Fleet()
        self._watcher: asyncio.Task[None] | None = None
        self.metrics.watch_engine(self._report)

    @property
    def num_restarts(self) -> int:
        return self._fleet.num_restarts

    @property
    def engines(self) -> frozenset[tuple[str, int]]:
        return self._fleet.engines

    async def start(self) -> None:
        """Waits a moment for replicas that are there already: a new ingress then has no request that it must refuse."""
        self._watcher = asyncio.create_task(self._watch())
        with suppress(EngineUnavailable):
            await self.wait_until_ready(_FIRST_REPORT_TIMEOUT_S)

    async def stop(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)

    def check_room(self, requests: Sequence[GenerateRequest]) -> None:
        """Checks the requests only: whether there is room, only the replicas know."""
        for request in requests:
            self.check(request)

    async def generate(
        self, request: GenerateRequest, *, is_patient: bool = False
    ) -> AsyncGenerator[ChoiceDelta, None]:
        request = msgspec.structs.replace(request, cache_salt=CALLER.get().cache_salt)
        self.check(request)
        timeline = Timeline(self.metrics, request)
        unfinished = set(range(request.n))
        try:
            async with aclosing(self._with_second_try(request, is_patient)) as batches:
                async for batch in batches:
                    now = time.monotonic()
                    for delta in batch:
                        timeline.received(_output(request, delta, has_times=not is_patient), now)
                        timeline.delivered(
                            delta.index, len(delta.token_ids), delta.num_cached_tokens, delta.finish_reason
                        )
                        if delta.finish_reason is not None:
                            unfinished.discard(delta.index)
                        yield delta
            if unfinished:
                raise GenerationFailed("A replica ended this request too early.")
        except Overloaded:
            unfinished.clear()  # no replica ran any of it: turned away, not aborted
            raise
        except ZeroshotError as error:
            timeline.error_code = error.code
            raise
        finally:
            timeline.ended(unfinished)

    async def _with_second_try(
        self, request: GenerateRequest, is_patient: bool
    ) -> AsyncGenerator[list[ChoiceDelta], None]:
        prefix = prefix_of(request.prompt_token_ids)
        route = Route(prefix)
        for is_last_try in (False, True):
            has_begun = False
            try:
                async with aclosing(self._once(request, is_patient, route)) as batches:
                    async for batch in batches:
                        has_begun = True
                        yield batch
                return
            except (EngineUnavailable, Overloaded) as error:
                if is_last_try or has_begun:
                    raise
                logger.info("trying another replica than %s: %s", route.replica or "the one chosen", error.code)
                route = Route(prefix, avoid=[route.replica])

    async def _once(
        self, request: GenerateRequest, is_patient: bool, route: Route
    ) -> AsyncGenerator[list[ChoiceDelta], None]:
        caller = CALLER.get()
        call = encode(Call.of(request, is_patient, caller))
        # In a context of its own: Serve tells HTTP requests apart by their contexts. Of two calls of one HTTP request
        # that wait for a replica at once, it would send only one.
        handle = self._completions if is_patient else self._streams
        response: Any = Context().run(handle.remote, call, route=route)
        try:
            if is_patient:
                yield _deltas_of(await _awaited(response, caller))
                return
            while (reply := await _awaited(anext(response, None), caller)) is not None:
                yield _deltas_of(reply)
        finally:
            response.cancel()  # without effect on one that is complete

    async def _watch(self) -> None:
        """Ask every replica how it is, for ever."""
        while True:
            try:
                async with asyncio.timeout(_REPORT_TIMEOUT_S):
                    replies = await self._replicas.broadcast("report").results_async(return_exceptions=True)
                self._fleet.update(decode_report(reply) for reply in replies if isinstance(reply, bytes))
            except DeploymentUnavailableError:
                self._fleet.update([])
            except (TimeoutError, RayError, RayServeException) as error:
                logger.warning("the replicas' state is not known: %s", error)
            except Exception:  # whatever it was: who stops asking never sees another replica come or go
                logger.exception("the replicas' state is not known")
            self.status, self.stats = self._fleet.status, self._fleet.stats
            await asyncio.sleep(_REPORT_INTERVAL_S)

    def _report(self) -> EngineReport:
        return EngineReport(
            is_up=self.status == "ready",
            pid=None,
            num_restarts=self.num_restarts,
            stats=self.stats,
            totals=self._fleet.totals,
        )


async def _awaited(answer: Awaitable[T], caller: Caller) -> T:
    """What a replica answers. Ray's errors become ours."""
    late_s = caller.deadline + _DEADLINE_GRACE_S - time.monotonic()
    try:
        async with asyncio.timeout(None if late_s == math.inf else late_s):
            return await answer
    except TimeoutError:
        raise caller.too_late() from None
    except BackPressureError:
        raise Overloaded("All replicas are busy, and many requests are waiting for them.", retry_after_s=1) from None
    except (DeploymentUnavailableError, ReplicaUnavailableError):
        raise EngineUnavailable("There is no replica to run this request. Try again in a moment.") from None
    except (RayActorError, TaskCancelledError) as error:
        if isinstance(error, TaskCancelledError) and _is_cancelled_here():
            raise asyncio.CancelledError from error
        raise EngineRestarting("The replica that ran this request was lost. Send the request again.") from error
    except (RayError, RayServeException):
        logger.exception("a replica failed on a request")
        raise GenerationFailed("A replica failed on this request; see its log.") from None


def _is_cancelled_here() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _deltas_of(reply: bytes) -> list[ChoiceDelta]:
    decoded = decode_reply(reply)
    if isinstance(decoded, Deltas):
        return decoded.deltas
    raise decoded.error()


def _output(request: GenerateRequest, delta: ChoiceDelta, *, has_times: bool) -> TokenOutput:
    """A delta as the timeline wants it. When a choice comes as a whole, nothing is known of its first token."""
    token_ids = delta.token_ids if has_times else []
    return TokenOutput(request_id=request.request_id, choice_index=delta.index, token_ids=token_ids)
