"""What the benchmarks' commands have in common: their help, and a result file that says what was run on what."""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DEMO = ROOT / "model_weights" / "demo"


class _Help(argparse.RawDescriptionHelpFormatter):
    """The docstring as it is written, and each option's default, where it has one that says something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        says_nothing = any(action.default is value for value in (None, False, argparse.SUPPRESS))
        return action.help if says_nothing else f"{action.help} (%(default)s)"


def parser(name: str, docstring: str | None) -> argparse.ArgumentParser:
    """Of `python -m benchmarks.<name>`, whose result goes to `--output`."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=docstring, formatter_class=_Help)
    made.add_argument("--output", type=Path, default=RESULTS / f"{name}.json", help="the result file")
    return made


def write(name: str, result: dict[str, Any], output: Path) -> None:
    """With the command and the machine that it is of."""
    command = shlex.join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]])
    output.parent.mkdir(parents=True, exist_ok=True)
    content = {"command": command, "machine": describe_machine()} | result
    output.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
