"""Sends every case of bad input to a running server and counts what came back.

    python -m benchmarks.hold

The cases are those of `tests/support/bad_input.py`, which `make test` runs too. After each one a healthy request is
compared with its answer from before; at the end every KV block must be back.
"""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from benchmarks import command
from benchmarks.random_checkpoint import random_checkpoint
from tests.support.bad_input import all_cases, problem
from tests.support.server import run_server

HEALTHY = {"prompt": "a healthy request", "max_tokens": 3, "temperature": 0}


def main() -> None:
    arguments = command.parser("hold", __doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder))
    command.write("hold", result, arguments.output)
    Console().print(markdown_table(result))


def measure(folder: Path) -> dict[str, Any]:
    statuses: Counter[str] = Counter()
    wrong: list[str] = []
    wrong_afterwards = 0
    with run_server(random_checkpoint("tiny", folder), folder) as server:
        server.wait_until_warm()
        expected = server.generate(**HEALTHY)["choices"]
        for case in track(all_cases(), transient=True):
            fault, status = problem(server.url, case)
            statuses["no answer" if status is None else str(status)] += 1
            if fault is not None:
                wrong.append(f"{case.name}: {fault}")
            wrong_afterwards += server.generate(**HEALTHY)["choices"] != expected
        engine = server.wait_until_idle()["engine"]
        has_traceback = "Traceback" in server.log.read_text()
    return {
        "inputs": statuses.total(),
        "answers_by_status": dict(sorted(statuses.items())),
        "answers_5xx": sum(count for status, count in statuses.items() if status.startswith("5")),
        "hangs_or_no_answer": statuses["no answer"],
        "not_as_documented": wrong,
        "next_request_wrong": wrong_afterwards,
        "tracebacks_in_log": int(has_traceback),
        "kv_blocks_missing": engine["num_kv_blocks"] - engine["num_free_kv_blocks"],
    }


def markdown_table(result: dict[str, Any]) -> str:
    """The table of docs/security.md."""
    return (
        "| bad inputs tried | 5xx | hangs or no answer | not as documented | next request wrong | KV blocks missing |\n"
        "|---|---|---|---|---|---|\n"
        f"| {result['inputs']} | {result['answers_5xx']} | {result['hangs_or_no_answer']} | "
        f"{len(result['not_as_documented'])} | {result['next_request_wrong']} | {result['kv_blocks_missing']} |"
    )


if __name__ == "__main__":
    main()
