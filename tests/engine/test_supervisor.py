"""An engine before it has ever been heard: one that hangs, one that nobody tells what to load, one started ahead."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from zeroshot.engine.messages import Launch
from zeroshot.engine.supervisor import EngineSupervisor, start_process
from zeroshot.errors import SettingsError
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


def test_a_folder_whose_name_is_too_long_for_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("a" * 90)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(SettingsError, match="set TMPDIR to a shorter one"):
        supervisor_of(EngineSettings())


def test_a_process_that_nobody_tells_what_to_load_ends() -> None:
    process = start_process()
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=60) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_does_not_end_an_engine_that_still_imports(number: int) -> None:
    """Ctrl-C and `systemctl stop` go to all processes: whether the engine ends is the server's to decide."""
    process = start_process()
    process.send_signal(number)
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


def test_a_heartbeat_of_an_engine_that_is_gone_says_nothing(checkpoint: Callable[..., Any]) -> None:
    heard: list[bool] = []

    async def run() -> None:
        settings = EngineSettings(model_folder=checkpoint().folder, device="cpu")
        supervisor = supervisor_of(settings, on_down=lambda _: heard.append(supervisor.heard(supervisor.generation)))
        heard.append(supervisor.heard(0))  # before there is any
        supervisor.start()
        try:
            async with asyncio.timeout(60):
                while supervisor.process is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                heard.append(supervisor.heard(1))
                supervisor.process.kill()
                while len(heard) < 3:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        finally:
            await supervisor.stop()

    asyncio.run(run())
    assert heard == [False, True, False]


def test_an_engine_that_cannot_be_started_is_tried_again(
    checkpoint: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons: list[str] = []
    attempts = iter([BlockingIOError("Resource temporarily unavailable"), None])

    def start() -> Any:
        if error := next(attempts, None):
            raise error
        return start_process()

    monkeypatch.setattr("zeroshot.engine.supervisor.start_process", start)

    async def run() -> bool:
        settings = EngineSettings(model_folder=checkpoint().folder, device="cpu")
        supervisor = supervisor_of(settings, on_down=reasons.append)
        supervisor.start()
        try:
            async with asyncio.timeout(60):
                while supervisor.process is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            return supervisor.process.poll() is None
        finally:
            await supervisor.stop()

    assert asyncio.run(run())
    assert reasons == ["could not be started: Resource temporarily unavailable"]


def test_an_engine_whose_parent_is_gone_before_it_loads_ends(checkpoint: Callable[..., Any], tmp_path: Path) -> None:
    settings = EngineSettings(model_folder=checkpoint().folder, device="cpu")
    process = start_process()
    assert process.stdin is not None
    addresses = [f"ipc://{tmp_path}/{name}" for name in ("commands", "outputs")]
    launch = Launch(1, os.getpid() + 1, *addresses, settings=msgspec.Raw(settings.model_dump_json().encode()))
    process.stdin.write(msgspec.json.encode(launch))
    process.stdin.close()
    assert process.wait(timeout=60) == 0
