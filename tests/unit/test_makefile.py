"""Rules of the Makefile, with stand-ins for what they call."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
if [ "$2" = venv ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0" "$3/bin/pip"; fi
"""


pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def test_an_environment_that_was_left_without_pip_is_made_again(tmp_path: Path) -> None:
    """As Debian's Python leaves one behind that lacks the package python3-venv."""
    python, venv = tmp_path / "python", tmp_path / "venv"
    python.write_text(PYTHON)
    python.chmod(0o755)
    (venv / "bin").mkdir(parents=True)
    shutil.copy(python, venv / "bin" / "python")
    command = ["make", "--silent", f"VENV={venv}", f"PYTHON={python}", f"{venv}/.ready"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert f"-m venv {venv}" in (tmp_path / "calls").read_text()
    assert "install" in (venv / "bin" / "calls").read_text()


@pytest.mark.parametrize(
    ("arguments", "variables", "options"),
    [
        ([], {"HOST": "my-machine", "PORT": "1", "MODEL": "T480"}, "--model demo --host 127.0.0.1 --port 8000"),
        ([], {"ZEROSHOT_HOST": "::1", "ZEROSHOT_PORT": "2"}, "--model demo --host ::1 --port 2"),
        (["MODEL=gpt2", "HOST=::", "PORT=3"], {"HOST": "my-machine"}, "--model gpt2 --host :: --port 3"),
    ],
    ids=["a shell's variables", "the server's variables", "the command line"],
)
def test_what_serve_takes_its_address_from(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], options: str
) -> None:
    (tmp_path / ".ready").touch()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ZEROSHOT_", "MAKE"))}
    result = subprocess.run(
        ["make", "--dry-run", f"VENV={tmp_path}", *arguments, "serve"],
        cwd=ROOT,
        env={name: value for name, value in clean.items() if name not in ("HOST", "PORT", "MODEL")} | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout.splitlines()[-1] == f"{tmp_path}/bin/zeroshot serve {options}"


@pytest.mark.parametrize("triton", ["3.6.0", "3.7.1", "3.9.0"])
def test_a_build_of_torch_may_bring_its_own_triton(triton: str) -> None:
    """CUDA's of torch 2.11 and 2.13 want exactly these, and the newest is the one that a CPU build is tested with."""
    (line,) = (line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("triton"))
    assert triton in Requirement(line).specifier
