"""(a) The GPU tests, side by side where pytest-xdist is installed: most of their time is a compiler's."""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.gpu.run import Run

REPOSITORY = Path(__file__).parents[2]
_SLOW = "test_compute_sanitizer_finds_nothing_in_the_decode_kernels"  # minutes: make test-gpu
_OUTCOME = re.compile(r"\b(PASSED|FAILED|ERROR|SKIPPED)\b")
_TEST = re.compile(r"tests/gpu/\S+?::.+?(?=\s+(?:PASSED|FAILED|ERROR|SKIPPED)\b|\s+-\s|\s*$)")


def measure(run: Run) -> None:
    """Into results["tests"]: {"summary", "failures"}. When the time is up, of those that have ended."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--tb=short", "tests/gpu"]
    command += ["-k", f"not {_SLOW}"]
    if importlib.util.find_spec("xdist") and not run.is_dry:
        command += ["-n", str(max(1, (os.cpu_count() or 2) - 2))]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    timeout_s = None if run.is_dry else run.deadline - time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=output, stderr=output)
        try:
            exit_code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
            exit_code = None
        output.seek(0)
        text = output.read()
    run.results["tests"] = read(text, is_whole=exit_code is not None)
    run.save()
    if exit_code != 0:
        sys.stderr.write(text[-6000:])
        raise RuntimeError(run.results["tests"]["summary"])


def read(text: str, *, is_whole: bool) -> dict[str, Any]:
    """What pytest -v printed, with xdist or without, to its end or not."""
    outcomes: dict[str, str] = {}
    for line in text.splitlines():
        test, outcome = _TEST.search(line), _OUTCOME.search(line)
        if test and outcome:
            outcomes[test[0]] = outcome[1]
    counts = Counter(outcomes.values())
    summary = ", ".join(f"{counts[name]} {name.lower()}" for name in sorted(counts)) or "no test has ended"
    return {
        "summary": summary if is_whole else f"{summary}; then its time was up",
        "failures": sorted(name for name, outcome in outcomes.items() if outcome in ("FAILED", "ERROR")),
    }
