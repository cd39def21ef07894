"""Rules of the Makefile, with stand-ins for what they call."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
if [ "$2" = venv ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0" "$3/bin/pip"; fi
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
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
