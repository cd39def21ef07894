"""Starts the engine process, watches it, starts another when it dies or hangs. Lives in the HTTP process: no torch."""

import asyncio
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from zeroshot.engine.messages import Launch
from zeroshot.settings import EngineSettings, engine_environment

logger = logging.getLogger(__name__)

_FIRST_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 10.0
_WATCH_INTERVAL_S = 0.05


class EngineSupervisor:
    """`on_down(reason)` is called as soon as an engine is known to be dead or hung, before the next one starts."""

    def __init__(
        self,
        settings: EngineSettings,
        *,
        hang_timeout_s: float,
        start_timeout_s: float,
        on_down: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._hang_timeout_s = hang_timeout_s
        self._start_timeout_s = start_timeout_s
        self._on_down = on_down
        self._folder = Path(tempfile.mkdtemp(prefix="zeroshot-"))
        self._task: asyncio.Task[None] | None = None
        self._last_heard: float | None = None
        self.generation = 0
        self.num_restarts = 0
        self.process: asyncio.subprocess.Process | None = None
        self.command_address = f"ipc://{self._folder}/commands"
        self.output_address = f"ipc://{self._folder}/outputs"

    def start(self) -> None:
        self._task = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def heard(self) -> None:
        """The client received a heartbeat of the current generation."""
        self._last_heard = time.monotonic()

    async def _supervise(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while True:
            await self._spawn()
            reason = await self._watch()
            was_ready = self._last_heard is not None
            await self._kill()
            self._on_down(reason)
            backoff_s = _FIRST_BACKOFF_S if was_ready else min(2 * backoff_s, _MAX_BACKOFF_S)
            logger.error("the engine %s; starting another in %.1f s", reason, backoff_s)
            await asyncio.sleep(backoff_s)
            self.num_restarts += 1

    async def _spawn(self) -> None:
        self.generation += 1
        self._last_heard = None
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "zeroshot.engine.process", stdin=asyncio.subprocess.PIPE, env=engine_environment()
        )
        launch = Launch(
            generation=self.generation,
            command_address=self.command_address,
            output_address=self.output_address,
            settings=msgspec.Raw(self._settings.model_dump_json().encode()),
        )
        if self.process.stdin is not None:
            self.process.stdin.write(msgspec.json.encode(launch))
            self.process.stdin.close()

    async def _watch(self) -> str:
        """Returns what went wrong, once something has. An engine that is loading is silent, and can hang too."""
        started_at = time.monotonic()
        while True:
            await asyncio.sleep(_WATCH_INTERVAL_S)
            if self.process is None or self.process.returncode is not None:
                return f"ended with exit code {self.process.returncode if self.process else 'unknown'}"
            now = time.monotonic()
            if self._last_heard is None and now - started_at > self._start_timeout_s:
                return f"was not ready after {self._start_timeout_s:g} s"
            if self._last_heard is not None and now - self._last_heard > self._hang_timeout_s:
                return f"has been silent for {self._hang_timeout_s:g} s"

    async def _kill(self) -> None:
        """SIGKILL also ends a stopped process; the engine has nothing on disk to lose."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
