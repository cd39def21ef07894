"""Injects each fault into a running server and measures how long it takes until requests are answered right again.

    python -m benchmarks.faults                 # every fault three times, GPT-2's vocabulary, a tiny model

The server is the one people run. NaN comes from a checkpoint in which one token's embedding is NaN; memory runs out
because the engine process may not have more address space than it has.
"""

import json
import os
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file

from benchmarks import command
from benchmarks.random_checkpoint import random_checkpoint
from tests.support.server import Server, run_server

HANG_TIMEOUT_S = 2.0
POISONED_TOKEN = 777
HEALTHY = {"prompt": "a healthy request", "max_tokens": 4, "temperature": 0}
LONG = {"prompt": "On and on", "max_tokens": 1000, "ignore_eos": True, "logit_bias": {POISONED_TOKEN: -100}}
"""Nor may it draw that token: one request in fifty did."""


def main() -> None:
    parser = command.parser("faults", __doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of each fault")
    arguments = parser.parse_args()
    load_average = os.getloadavg()[0]  # of the last minute, before we add to it
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), arguments.rounds)
    result = {
        "load_average": load_average,
        "engine_hang_timeout_s": HANG_TIMEOUT_S,
        "faults": rows,
    }
    command.write("faults", result, arguments.output)
    report(result)


def measure(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """One row a fault: seconds to recover, what the requests hit by it were told, whether anything was lost."""
    checkpoint = poisoned_checkpoint(folder)
    rows = []
    environment = {"ZEROSHOT_ENGINE_HANG_TIMEOUT_S": str(HANG_TIMEOUT_S)}
    with run_server(checkpoint, folder, **environment) as server:
        server.wait_until_warm()
        expected = server.generate(**HEALTHY)["choices"]
        for name, inject in FAULTS.items():
            found = [inject(server, expected) for _ in range(rounds)]
            rows.append(
                {
                    "fault": name,
                    "injected": rounds,
                    "recovered": sum(one["is_right_again"] for one in found),
                    "seconds_to_recover": [round(one["seconds"], 2) for one in found],
                    "answers_of_requests_hit": sorted({answer for one in found for answer in one["answers"]}),
                    "lost": sum(one["lost"] for one in found),
                }
            )
    return rows


def poisoned_checkpoint(folder: Path) -> Path:
    """A tiny checkpoint that is right but for one token, whose embedding is NaN. The head is not tied to it."""
    source = random_checkpoint("tiny", folder)
    target = Path(shutil.copytree(source, folder / "poisoned"))
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    tensors = load_file(target / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    tensors["transformer.wte.weight"][POISONED_TOKEN] = float("nan")
    save_file(tensors, target / "model.safetensors")
    return target


def engine_pid(server: Server) -> int:
    children = psutil.Process(server.process.pid).children()
    return next(child.pid for child in children if "zeroshot.engine.process" in child.cmdline())


def while_requests_run(server: Server, expected: Any, inject: Callable[[], Any]) -> dict[str, Any]:
    """Two requests run, one plain and one a stream; the fault strikes; the time until a healthy request is right."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        bodies = [LONG, LONG | {"stream": True}]
        futures = [pool.submit(httpx.post, f"{server.url}/generate", json=body, timeout=120) for body in bodies]
        server.wait_until(lambda health: health["engine"]["num_running"] == 2)
        started = time.perf_counter()
        inject()
        seconds, is_right = seconds_until_right(server, expected, started)
        answers = [told(future.result()) for future in futures]
    server.wait_until_idle()
    return {
        "seconds": seconds,
        "is_right_again": is_right,
        "answers": answers,
        "lost": sum(answer == "nothing" for answer in answers),
    }


def seconds_until_right(server: Server, expected: Any, started: float, limit_s: float = 120.0) -> tuple[float, bool]:
    """How long until there is an answer, and whether it is the right one. Refusals are retried."""
    while time.perf_counter() - started < limit_s:
        response = server.http.post("/generate", json=HEALTHY)
        if response.status_code == 200:
            return time.perf_counter() - started, response.json()["choices"] == expected
        time.sleep(0.02)
    return limit_s, False


def told(response: httpx.Response) -> str:
    """The error's code, `answered`, or `nothing` for an answer that ends without either."""
    if not response.headers["content-type"].startswith("text/event-stream"):
        body = response.json()
        return f"{response.status_code} {body['error']['code']}" if "error" in body else "answered"
    lines = [line.removeprefix("data: ") for line in response.text.split("\n") if line]
    last = json.loads(lines[-2])
    if lines[-1] != "[DONE]":
        return "nothing"
    return f"event {last['error']['code']}" if "error" in last else "answered"


def killed(server: Server, expected: Any) -> dict[str, Any]:
    return while_requests_run(server, expected, lambda: os.kill(engine_pid(server), signal.SIGKILL))


def hung(server: Server, expected: Any) -> dict[str, Any]:
    return while_requests_run(server, expected, lambda: os.kill(engine_pid(server), signal.SIGSTOP))


def crashed(server: Server, expected: Any) -> dict[str, Any]:
    """A segmentation fault, as a native library's bug would end the process."""
    return while_requests_run(server, expected, lambda: os.kill(engine_pid(server), signal.SIGSEGV))


def out_of_memory(server: Server, expected: Any) -> dict[str, Any]:
    """The address space is limited to what the engine has: its next allocation fails, in whatever code makes it."""
    import resource

    pid = engine_pid(server)

    def inject() -> None:
        size = psutil.Process(pid).memory_info().vms
        resource.prlimit(pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
        body = {"token_ids": list(range(1, 1000)), "top_logprobs": 20}  # logits of 128 rows at once: 26 MB
        answers.append(told(server.http.post("/score", json=body)))
        if psutil.pid_exists(pid):
            resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    answers: list[str] = []
    found = while_requests_run(server, expected, inject)
    found["answers"] += answers
    return found


def nan_logits(server: Server, expected: Any) -> dict[str, Any]:
    answers: list[str] = []

    def inject() -> None:
        body = {"prompt": [1, POISONED_TOKEN, 2], "max_tokens": 4}
        answers.append(told(server.http.post("/generate", json=body)))

    found = while_requests_run(server, expected, inject)
    found["answers"] += answers
    return found


FAULTS: dict[str, Callable[[Server, Any], dict[str, Any]]] = {
    "engine killed (SIGKILL)": killed,
    "engine crashed (SIGSEGV)": crashed,
    "engine hung (SIGSTOP)": hung,
    "out of memory in the engine": out_of_memory,
    "NaN in one request's logits": nan_logits,
}


def markdown_table(result: dict[str, Any]) -> str:
    """The table of docs/security.md."""
    lines = [
        "| fault | injected | recovered | seconds, median | those hit were told | lost |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["faults"]:
        seconds = statistics.median(row["seconds_to_recover"])
        told_them = ", ".join(f"`{answer}`" for answer in row["answers_of_requests_hit"])
        lines.append(
            f"| {row['fault']} | {row['injected']} | {row['recovered']} | {seconds:.2f} | {told_them} | {row['lost']} |"
        )
    return "\n".join(lines)


def report(result: dict[str, Any]) -> None:
    table = Table("fault", "injected", "recovered", "seconds", "answers", "lost")
    for row in result["faults"]:
        numbers = (row["injected"], row["recovered"], row["seconds_to_recover"])
        table.add_row(row["fault"], *map(str, numbers), ", ".join(row["answers_of_requests_hit"]), str(row["lost"]))
    Console().print(table)


if __name__ == "__main__":
    main()
