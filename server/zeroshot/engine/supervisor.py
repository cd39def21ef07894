"""Starts the engine process, watches it, starts another when it dies or hangs. Lives in the HTTP process: no torch."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec
import zmq

from zeroshot.engine.messages import EXIT_REFUSED, GROUP_SIGNALS, Launch
from zeroshot.errors import SettingsError
from zeroshot.settings import EngineSettings, engine_environment

logger = logging.getLogger(__name__)

_FIRST_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 10.0
_WATCH_INTERVAL_S = 0.05
_ASLEEP_S = 1.0
"""Between two looks at the engine. A longer time was not the engine's silence: this process was stopped itself, as
Ctrl-Z and a paused container do it."""


def start_process() -> "subprocess.Popen[bytes]":
    """An engine that imports torch and then waits to be told what to load. It ends when its parent does."""
    command = [sys.executable, "-m", "zeroshot.engine.process"]
    # They would end it while it imports, before it can ignore them. The child inherits what is blocked.
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, env=engine_environment())  # noqa: S603 - ours
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


class EngineSupervisor:
    """`on_down(reason)` is called as soon as an engine is known to be dead or hung, before the next one starts.

    There is no next one if no engine was ever ready and one refused what it was told to load: `on_refused()`.

    `process`: one that was started already, so that it imports torch while this process imports what it needs.
    """

    def __init__(
        self,
        settings: EngineSettings,
        *,
        hang_timeout_s: float,
        start_timeout_s: float,
        on_down: Callable[[str], None],
        on_refused: Callable[[], None],
        process: "subprocess.Popen[bytes] | None" = None,
    ) -> None:
        self._settings = settings
        self._hang_timeout_s = hang_timeout_s
        self._start_timeout_s = start_timeout_s
        self._on_down = on_down
        self._on_refused = on_refused
        self._folder = tempfile.TemporaryDirectory(prefix="zeroshot-", ignore_cleanup_errors=True)
        self._task: asyncio.Task[None] | None = None
        self._last_heard: float | None = None
        self._is_down = True
        self.generation = 0
        self.num_restarts = 0
        self.process = process
        self.command_address = f"ipc://{self._folder.name}/commands"
        self.output_address = f"ipc://{self._folder.name}/outputs"
        if len(self.command_address.encode()) - len("ipc://") > zmq.IPC_PATH_MAX_LEN:
            raise SettingsError(f"{self._folder.name} is too long a name for sockets: set TMPDIR to a shorter one.")

    def start(self) -> None:
        self._task = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._kill()
        self._folder.cleanup()

    def heard(self, generation: int) -> bool:
        """The client received a heartbeat. False if it is of an engine that is gone, and says nothing any more."""
        if self._is_down or generation != self.generation:
            return False
        self._last_heard = time.monotonic()
        return True

    async def _supervise(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        was_ever_ready = False
        while True:
            try:
                self._spawn()
                reason = await self._watch()
            except OSError as error:  # too many processes, or too little memory for one more
                reason = f"could not be started: {error}"
            was_ready = self._last_heard is not None
            was_ever_ready = was_ever_ready or was_ready
            if not was_ever_ready and self.process is not None and self.process.returncode == EXIT_REFUSED:
                self._on_refused()
                return
            self._is_down = True
            await self._kill()
            self._on_down(reason)
            backoff_s = _FIRST_BACKOFF_S if was_ready else min(2 * backoff_s, _MAX_BACKOFF_S)
            logger.error("the engine %s; starting another in %.1f s", reason, backoff_s)
            await asyncio.sleep(backoff_s)
            self.num_restarts += 1

    def _spawn(self) -> None:
        self.generation += 1
        self._last_heard, self._is_down = None, False
        launch = Launch(
            generation=self.generation,
            parent_pid=os.getpid(),
            command_address=self.command_address,
            output_address=self.output_address,
            settings=msgspec.Raw(self._settings.model_dump_json().encode()),
        )
        if self.process is None or self.process.poll() is not None:
            self.process = start_process()
        if self.process.stdin is not None:
            with suppress(BrokenPipeError), self.process.stdin as stdin:  # one that has ended is seen by `_watch`
                stdin.write(msgspec.json.encode(launch))

    async def _watch(self) -> str:
        """Returns what went wrong, once something has. An engine that is loading is silent, and can hang too."""
        started_at = looked_at = time.monotonic()
        while True:
            await asyncio.sleep(_WATCH_INTERVAL_S)
            now = time.monotonic()
            if now - looked_at > _ASLEEP_S:
                started_at += now - looked_at
                if self._last_heard is not None:
                    self._last_heard = now
            looked_at = now
            if self.process is None or self.process.poll() is not None:
                return f"ended with exit code {self.process.returncode if self.process else 'unknown'}"
            if self._last_heard is None and now - started_at > self._start_timeout_s:
                return f"was not ready after {self._start_timeout_s:g} s"
            if self._last_heard is not None and now - self._last_heard > self._hang_timeout_s:
                return f"has been silent for {self._hang_timeout_s:g} s"

    async def _kill(self) -> None:
        """SIGKILL also ends a stopped process; the engine has nothing on disk to lose."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
