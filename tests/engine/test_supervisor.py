"""An engine that hangs before it has ever been heard."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

from zeroshot.engine.supervisor import EngineSupervisor
from zeroshot.settings import EngineSettings


def test_an_engine_that_hangs_while_it_loads_is_replaced(checkpoint: Callable[..., Any]) -> None:
    """Stopped as soon as it is there: it has sent no heartbeat that could be missed."""
    reasons: list[str] = []

    async def start_and_stop() -> tuple[int, int]:
        settings = EngineSettings(model_folder=checkpoint().folder, device="cpu")
        supervisor = EngineSupervisor(settings, hang_timeout_s=60, start_timeout_s=0.5, on_down=reasons.append)
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
