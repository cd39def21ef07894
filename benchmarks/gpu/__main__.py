"""Runs the sections one after the other, each in a process of its own. See the package's docstring for the command."""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.gpu.section import SECTIONS
from benchmarks.gpu.table import markdown

REPOSITORY = Path(__file__).parents[2]
_GRACE_S = 5.0
"""After a section's time: for the case that is running then."""
_SECTION = ["-m", "benchmarks.gpu.section"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the CUDA path; writes benchmarks/results/<card>-<date>.json")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU, kernels interpreted")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections to run")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "benchmarks" / "results")
    arguments = parser.parse_args()
    if not arguments.dry_run:
        require_cuda()
    arguments.results.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.gpu", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: _version(name) for name in ("torch", "triton", "transformers")},
        "sections": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "results.json"
        state.write_text(json.dumps(result))
        # The rates of the card are what everything else is compared to.
        for name in [name for name in SECTIONS if name in arguments.only or name == "card"]:
            result = run_section(name, state, is_dry=arguments.dry_run)
            write(result, arguments.results)  # each time: what is there is there, whatever happens to the next one
            if "card_name" not in result:
                sys.exit(f"the card can't be measured: {result['sections'][name]['outcome']}")
    sys.stdout.write(markdown(result))


def require_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        sys.exit("There is no CUDA device here. Every section's code at tiny sizes: python -m benchmarks.gpu --dry-run")


def run_section(name: str, state: Path, *, is_dry: bool) -> dict[str, Any]:
    """In a process that is killed when its time is over. `state`: the results so far, which the section adds to."""
    sys.stderr.write(f"{name} ...\n")
    command = [sys.executable, *_SECTION, name, str(state), *(["--dry-run"] if is_dry else [])]
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True)
    try:
        exit_code = process.wait(None if is_dry else SECTIONS[name] + _GRACE_S)
        outcome = "done" if exit_code == 0 else f"failed: exit code {exit_code}"
    except subprocess.TimeoutExpired:
        outcome = "stopped: its time was up"
    finally:
        _kill(process)
    result: dict[str, Any] = json.loads(state.read_text())
    outcome = result["sections"].get(name, {}).get("outcome", outcome)
    result["sections"][name] = {"seconds": round(time.monotonic() - start, 1), "outcome": outcome}
    state.write_text(json.dumps(result))
    return result


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With whatever it has started: a server left behind would share the card with the next section."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def write(result: dict[str, Any], folder: Path) -> None:
    """<card>-<date>.json and the same as a table beside it. Nothing before the card has a name."""
    if "card_name" not in result:
        return
    stem = f"{re.sub('[^a-z0-9]+', '-', result['card_name'].lower()).strip('-')}-{result['date'][:10]}"
    (folder / f"{stem}.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / f"{stem}.md").write_text(markdown(result))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
