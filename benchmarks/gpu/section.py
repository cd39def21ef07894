"""One section in a process of its own: its memory is gone when the next one starts, and so are its crashes.

python -m benchmarks.gpu.section NAME STATE [--dry-run]: adds to the results in the file STATE, after every case.
"""

import argparse
import json
import os
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

SECTIONS = {
    "card": 20,
    "tests": 160,
    "kernels": 40,
    "fused": 30,
    "engine": 88,
    "kv_fp8": 25,
    "peers": 40,
    "http": 65,
}
"""Section -> its seconds, with its start. A case that is running when they are over may end if it is quick about it;
the next ones are skipped. Together they stay under eight minutes."""


def main() -> None:
    start = time.monotonic()
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=SECTIONS)
    parser.add_argument("state", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    os.environ["TRITON_INTERPRET"] = "1" if arguments.dry_run else "0"  # before Triton's first import
    import torch

    from benchmarks.gpu.run import DRY, FULL, Run
    from zeroshot.garbage_collection import freeze_loaded_objects

    run = Run(
        torch.device("cpu" if arguments.dry_run else "cuda"),
        arguments.dry_run,
        DRY if arguments.dry_run else FULL,
        json.loads(arguments.state.read_text()),
        float("inf") if arguments.dry_run else start + SECTIONS[arguments.name],
        arguments.state,
    )
    outcome = "done"
    try:
        section = import_module(f"benchmarks.gpu.{arguments.name}")
        freeze_loaded_objects()  # as the server does
        section.measure(run)
    except Exception as error:  # reported, and the next section gets its turn
        traceback.print_exc()
        outcome = f"failed: {type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"
    run.results["sections"][arguments.name] = {"outcome": outcome}
    run.save()
    sys.exit(outcome != "done")


if __name__ == "__main__":
    main()
