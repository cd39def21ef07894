"""Clients that can't share the server's environment get one of their own, made once and kept beside it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def client_environment(name: str, *requirements: str, timeout_s: float = 120) -> Path:
    """The Python interpreter of an environment with these requirements; skips with pip's error where there is none."""
    folder = Path(sys.prefix) / "clients" / name
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join([sys.version, *requirements])
    if installed.exists() and installed.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    make = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    # By this environment's pip, and only what the client imports is compiled: most of the time went into the rest.
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-compile", "--prefer-binary"]
    try:
        for command in (make, [*pip, "--quiet", "--disable-pip-version-check", *requirements]):
            subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=True)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{' '.join(requirements)}: not installed in {timeout_s:.0f} s")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{' '.join(requirements)}: {(error.stderr or error.stdout).strip()[-1000:]}")
    installed.write_text(wanted, encoding="utf-8")
    return python
