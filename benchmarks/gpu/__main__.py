"""Runs the sections one after the other. See the package's docstring for the command."""

import argparse
import json
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]

SECTIONS = {"tests": 150, "card": 20, "kernels": 50, "engine": 120, "fused": 60, "kv_fp8": 45, "peers": 90, "http": 45}
"""Section -> its seconds. A case that is running when they are over is finished; the next ones are skipped."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the CUDA path; writes benchmarks/results/<card>-<date>.json")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU, kernels interpreted")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections to run")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "benchmarks" / "results")
    arguments = parser.parse_args()
    os.environ["TRITON_INTERPRET"] = "1" if arguments.dry_run else "0"  # before Triton's first import
    result = measure(arguments.dry_run, arguments.only)
    stem = f"{re.sub('[^a-z0-9]+', '-', result['card_name'].lower()).strip('-')}-{result['date'][:10]}"
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / f"{stem}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    report = import_module("benchmarks.gpu.table").markdown(result)
    path.with_suffix(".md").write_text(report)
    sys.stdout.write(report)


def measure(is_dry: bool, only: list[str]) -> dict[str, Any]:
    import torch

    from benchmarks.gpu.run import DRY, FULL, Run

    if not is_dry and not torch.cuda.is_available():
        sys.exit("There is no CUDA device here. Every section's code at tiny sizes: python -m benchmarks.gpu --dry-run")
    run = Run(torch.device("cpu" if is_dry else "cuda"), is_dry, DRY if is_dry else FULL)
    run.results |= {
        "command": " ".join(["python -m benchmarks.gpu", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "card_name": "dry run" if is_dry else torch.cuda.get_device_name(),
        "versions": {name: _version(name) for name in ("torch", "triton", "transformers")},
        "sections": {},
    }
    # The rates of the card are what everything else is compared to.
    for name in [name for name in SECTIONS if name in only or name == "card"]:
        _section(run, name, tests if name == "tests" else _measure_of(name))
    return run.results


def _measure_of(name: str) -> Callable[[Any], None]:
    """Imported when it is run: a section whose libraries are missing fails alone."""
    return lambda run: import_module(f"benchmarks.gpu.{name}").measure(run)


def _section(run: Any, name: str, function: Callable[[Any], None]) -> None:
    sys.stderr.write(f"{name} ...\n")
    start = time.monotonic()
    run.deadline = float("inf") if run.is_dry else start + SECTIONS[name]
    outcome = "done"
    try:
        function(run)
    except Exception as error:  # reported, and the next section gets its turn
        traceback.print_exc()
        outcome = f"failed: {type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"
    run.results["sections"][name] = {"seconds": round(time.monotonic() - start, 1), "outcome": outcome}


def tests(run: Any) -> None:
    """(a) The GPU tests, in a process of their own: their memory is gone when we measure."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", "tests/gpu"]
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    timeout_s = None if run.is_dry else SECTIONS["tests"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    last = (done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]])[-1]
    failures = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    run.results["tests"] = {"summary": last, "failures": failures}
    if done.returncode:
        raise RuntimeError(last)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
