"""An engine before it has ever been heard: one that hangs, one that nobody tells what to load, one started ahead."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

from zeroshot.engine.supervisor import EngineSupervisor, start_process
from zeroshot.settings import EngineSettings


def supervisor_of(settings: EngineSettings, **given: Any) -> EngineSupervisor:
    options = {
        "hang_timeout_s": 60,
        "start_timeout_s": 60,
        "on_down": lambda _: None,
        "on_refused": lambda: None,
    }
    return EngineSupervisor(settings, **options | given)


def test_an_engine_that_hangs_while_it_loads_is_replaced(checkpoint: Callable[..., Any]) -> None:
    """Stopped as soon as it is there: it has sent no heartbeat that could be missed."""
    reasons: list[str] = []

    async def start_and_stop() -> tuple[int, int]:
        settings = EngineSettings(model_folder=checkpoint().folder, device="cpu")
        supervisor = supervisor_of(settings, start_timeout_s=0.5, on_down=reasons.append)
        supervisor.start()
        try:
            async with asyncio.timeout(60):
                while supervisor.process is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                stopped = supervisor.process.pid
                os.kill(stopped, signal.SIGSTOP)
                while supervisor.process.pid == stopped:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            return supervisor.num_restarts, supervisor.generation
        finally:
            await supervisor.stop()

    num_restarts, generation = asyncio.run(start_and_stop())
    assert reasons[0] == "was not ready after 0.5 s"
    assert (num_restarts, generation) == (1, 2)


def test_a_process_that_nobody_tells_what_to_load_ends() -> None:
    process = start_process()
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=60) == 0


def test_a_process_that_was_started_ahead_is_the_first_engine(checkpoint: Callable[..., Any]) -> None:
    process = start_process()

    async def first_two() -> list[int]:
        settings = EngineSettings(model_folder=checkpoint().folder, device="cpu")
        supervisor = supervisor_of(settings, process=process)
        pids = [process.pid]
        supervisor.start()
        try:
            async with asyncio.timeout(60):
                while supervisor.generation == 0:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                pids.append(supervisor.process.pid if supervisor.process else 0)
                os.kill(process.pid, signal.SIGKILL)
                while supervisor.generation == 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                pids.append(supervisor.process.pid if supervisor.process else 0)
            return pids
        finally:
            await supervisor.stop()

    started, first, second = asyncio.run(first_two())
    assert first == started
    assert second not in (0, started)


def test_an_engine_that_refuses_what_it_is_told_has_no_successor(checkpoint: Callable[..., Any]) -> None:
    events: list[str] = []

    async def run() -> int:
        settings = EngineSettings(model_folder=checkpoint().folder, device="cpu", kv_dtype="fp8")
        supervisor = supervisor_of(settings, on_down=events.append, on_refused=lambda: events.append("refused"))
        supervisor.start()
        try:
            async with asyncio.timeout(60):
                while not events:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            return supervisor.generation
        finally:
            await supervisor.stop()

    assert asyncio.run(run()) == 1
    assert events == ["refused"]
