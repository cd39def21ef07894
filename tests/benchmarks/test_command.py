"""What all benchmarks have in common: a help that explains every option, a result that says how it came about."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from benchmarks import command


def test_help_is_the_docstring_and_says_each_default(capsys: pytest.CaptureFixture[str]) -> None:
    parser = command.parser("cpu", "One line.\n\n    python -m benchmarks.cpu\n")
    parser.add_argument("--rounds", type=int, default=0, help="that count")
    parser.add_argument("--data", required=True, help="the folder")
    parser.add_argument("--merge", action="store_true", help="keep the rest")
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("usage: python -m benchmarks.cpu ")
    assert {"python -m benchmarks.cpu", "--rounds ROUNDS that count (0)", "--data DATA the folder"} <= set(lines)
    assert "--merge keep the rest" in lines


def test_a_result_says_what_was_run_on_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["cpu.py", "--systems", "Hugging Face generate"])
    output = tmp_path / "new" / "cpu.json"
    command.write("cpu", {"rates": [1]}, output)
    result = json.loads(output.read_text())
    assert list(result) == ["command", "machine", "rates"]
    assert shlex.split(result["command"]) == ["python", "-m", "benchmarks.cpu", "--systems", "Hugging Face generate"]
