"""A command's first second, the address that a server tells, and output that finds no room."""

import os
import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

COMMAND = [sys.executable, "-m", "zeroshot"]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_server_tells_the_port_that_was_picked_for_it(log_format: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", "--threads", "1", "--log-format", log_format],
        stderr=subprocess.PIPE,
        text=True,
    )
    with ExitStack() as at_the_end:
        at_the_end.callback(process.communicate)
        at_the_end.callback(process.terminate)
        assert process.stderr is not None
        url = next(match[0] for line in process.stderr if (match := re.search(r"http://127\.0\.0\.1:\d+/", line)))
        assert httpx.get(f"{url}health/live", timeout=30).status_code == 200


@pytest.mark.parametrize(("module", "arguments"), [("typer", ["--version"]), ("torch", ["generate", "One two"])])
def test_ctrl_c_while_modules_are_imported_ends_quietly(tmp_path: Path, module: str, arguments: list[str]) -> None:
    """Also where a module's import would have swallowed it as an exception."""
    (tmp_path / f"{module}.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    sum(range(10**6))\n"
        "except BaseException as error:\n    raise ImportError from error\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    result = subprocess.run([*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_a_server_that_cannot_serve_does_not_wait_for_its_engine(tmp_path: Path) -> None:
    """Which is importing torch: seconds. Its output would stay open for as long."""
    (tmp_path / "torch.py").write_text("import time\ntime.sleep(120)\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [*COMMAND, "serve", "--port", str(taken.getsockname()[1])]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "is in use" in " ".join(result.stderr.split())


def test_ctrl_c_before_a_command_begins_ends_quietly() -> None:
    program = "import signal; from zeroshot import cli; cli.app = lambda: signal.raise_signal(2); cli.main()"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (130, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["eval", "--list"]])
def test_output_that_finds_no_room_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr == "Error: There is no room for what this command writes: No space left on device.\n"
