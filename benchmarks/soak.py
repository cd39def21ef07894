"""Minutes of random mixed traffic at a server whose engine is killed and stopped again and again.

    python -m benchmarks.soak --minutes 10

Every surface is called, one request in five leaves before its answer is there, and every half minute the engine gets
a SIGKILL or a SIGSTOP. At the end:

    full    requests that were told that the queue is full (429), or `restarting` (503) that an engine starts again
    lost    requests that got neither a whole answer nor an error that says why
    failed  requests that got an error nothing explains: not a full queue, not an engine being restarted
    wrong   sampled answers that the same request, sent alone and not streamed, did not give again
    leaks   KV blocks, threads or file descriptors that are not back at rest

Exit code 1 if any of them is not 0.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import command
from benchmarks.http_server import server_process
from benchmarks.soak_faults import Usage, at_rest, inject_faults, wait_until_idle, watch_usage
from benchmarks.soak_traffic import EXPECTED_ERRORS, Call, ExplicitError, Incomplete, Traffic, is_same, send

DISCONNECT_SHARE = 0.2
MAX_STAY_S = 0.5
PAUSE_AFTER_ERROR_S = 0.5
ANSWER_TIMEOUT_S = 120.0
WARM_UP_S = 15.0
SIGNALS = ("SIGKILL", "SIGSTOP")
OUTCOMES = ("whole", "left", "full", "restarting", "failed", "lost")
SEEDED = {"text": {"seed": 11, "max_tokens": 24}, "json": {"seed": 11}}
"""What is added to the example of a task of this kind."""
_MAX_EXAMPLES = 20


class Soak:
    """The workers and what became of their requests."""

    def __init__(self, http: httpx.AsyncClient, traffic: Traffic, recheck_share: float) -> None:
        self.http, self.traffic, self.recheck_share = http, traffic, recheck_share
        self.outcomes: dict[str, Counter[str]] = {}
        self.errors: Counter[str] = Counter()
        self.lost: list[str] = []
        self.sampled: list[tuple[Call, Any]] = []

    async def work(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            call = self.traffic.draw()
            outcome = await self._run(call)
            self.outcomes.setdefault(call.kind, Counter())[outcome] += 1

    async def _run(self, call: Call) -> str:
        leaves = self.traffic.chance(DISCONNECT_SHARE)
        stay_s = self.traffic.seconds(MAX_STAY_S) if leaves else ANSWER_TIMEOUT_S
        try:
            async with asyncio.timeout(stay_s):
                answer = await send(self.http, call)
        except ExplicitError as error:
            self.errors[error.code] += 1
            await asyncio.sleep(PAUSE_AFTER_ERROR_S)  # or most of the soak is refusals while an engine starts
            return EXPECTED_ERRORS.get(error.code, "failed")
        except TimeoutError:
            if leaves:
                return "left"
            self.lost.append(f"{call.path}: no answer in {ANSWER_TIMEOUT_S:g} s")
        except (Incomplete, httpx.TransportError, ValueError, KeyError) as error:
            self.lost.append(f"{call.path}: {error!r}")
        else:
            if call.essence is not None and self.traffic.chance(self.recheck_share):
                self.sampled.append((call, call.essence(answer)))
            return "whole"
        return "lost"

    async def recheck(self) -> list[dict[str, Any]]:
        """The sampled answers that are not given again."""
        wrong = []
        for call, expected in self.sampled:
            alone = call.alone()
            again = alone.essence(await send(self.http, alone)) if alone.essence else None
            if not is_same(expected, again):
                wrong.append({"path": call.path, "body": call.body, "answer": expected, "alone": again})
        return wrong


async def soak(url: str, server_pid: int, arguments: argparse.Namespace) -> dict[str, Any]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=ANSWER_TIMEOUT_S, limits=limits) as http:
        traffic = Traffic(arguments.seed, await task_examples(http))
        warm_up_s = min(WARM_UP_S, 20 * arguments.minutes)
        await run_traffic(Soak(http, traffic, 0.0), arguments.concurrency, warm_up_s, lambda: True)
        before = await at_rest(http, server_pid)
        run = Soak(http, traffic, arguments.recheck_share)
        faults: list[dict[str, Any]] = []
        server_usage, engine_usage = Usage(), Usage()
        background = [
            asyncio.create_task(inject_faults(http, server_pid, arguments.fault_interval_s, faults)),
            asyncio.create_task(watch_usage(server_pid, server_usage, engine_usage)),
        ]
        # On a busy machine an engine takes its time to start: go on until there has been each fault.
        has_seen_enough = lambda: len(faults) >= len(SIGNALS) or background[0].done()  # noqa: E731
        await run_traffic(run, arguments.concurrency, 60 * arguments.minutes, has_seen_enough)
        for task in background:
            task.cancel()
        for error in await asyncio.gather(*background, return_exceptions=True):
            if not isinstance(error, asyncio.CancelledError):
                raise RuntimeError("the soak's own watching failed") from error
        after = await at_rest(http, server_pid)
        wrong = await run.recheck()
        stats = await wait_until_idle(http)
    return {
        "outcomes": {kind: dict(counts) for kind, counts in sorted(run.outcomes.items())},
        "requests": sum(counts.total() for counts in run.outcomes.values()),
        "lost": len(run.lost),
        "failed": sum(counts["failed"] for counts in run.outcomes.values()),
        "rechecked": len(run.sampled),
        "wrong": len(wrong),
        "errors": dict(run.errors),
        "examples": {"lost": run.lost[:_MAX_EXAMPLES], "wrong": wrong[:_MAX_EXAMPLES]},
        "faults": faults,
        "kv_blocks": {"total": stats["num_kv_blocks"], "free_at_end": stats["num_free_kv_blocks"]},
        "at_rest": {"before": before, "after": after},
        "quarters": {"server": server_usage.quarters(), "engine": engine_usage.quarters()},
    }


async def run_traffic(run: Soak, concurrency: int, seconds: float, has_seen_enough: Callable[[], bool]) -> None:
    """For so long at least."""
    until = time.monotonic() + seconds

    def is_over() -> bool:
        return time.monotonic() >= until and has_seen_enough()

    workers = asyncio.gather(*(run.work(is_over) for _ in range(concurrency)))
    with Progress(transient=True) as bar:
        task = bar.add_task("soaking", total=seconds)
        while not workers.done():
            await asyncio.wait([workers], timeout=0.5)
            done = sum(counts.total() for counts in run.outcomes.values())
            elapsed = seconds - max(0.0, until - time.monotonic())
            bar.update(task, completed=elapsed, description=f"{done} requests, {len(run.lost)} lost")
    await workers


async def task_examples(http: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    """The example of each task that has one; with a seed where tokens are drawn, so that it can be asked again."""
    examples = {}
    for listed in (await http.get("/tasks")).json()["tasks"]:
        details = (await http.get(listed["url"])).json()
        if details["example"] is not None:
            examples[listed["name"]] = details["example"] | SEEDED.get(listed["kind"], {})
    return examples


def leaks(result: dict[str, Any]) -> list[str]:
    """What is not back at rest. An engine's own memory begins anew with each engine; the server's must not grow."""
    found = []
    blocks = result["kv_blocks"]
    if blocks["free_at_end"] != blocks["total"]:
        found.append(f"{blocks['total'] - blocks['free_at_end']} KV blocks")
    before, after = result["at_rest"]["before"], result["at_rest"]["after"]
    for process in ("server", "engine"):
        for name in ("threads", "fds"):
            # Thread pools fill as they are needed, within the first half at the latest. What leaks goes on growing.
            filled = max(result["quarters"][process][name][:2]) if name == "threads" else 0
            grown = after[process][name] - max(before[process][name], filled)
            if grown > 0:
                found.append(f"{grown:g} {name} of the {process}")
    return found


def report(result: dict[str, Any]) -> None:
    columns = OUTCOMES
    table = Table("", *columns, title=f"{result['requests']} requests in {result['minutes']:g} minutes")
    for kind, counts in result["outcomes"].items():
        table.add_row(kind, *(str(counts.get(column, 0)) for column in columns))
    console = Console()
    console.print(table)
    slowest = {name: [f["recovered_s"] for f in result["faults"] if f["signal"] == name] for name in SIGNALS}
    faults = ", ".join(f"{len(s)} x {name} (ready again in {max(s)} s at most)" for name, s in slowest.items() if s)
    console.print(f"lost {result['lost']}, failed {result['failed']}, errors {result['errors']}")
    console.print(f"wrong {result['wrong']} of {result['rechecked']} sent again alone")
    console.print(f"faults: {faults or 'none'}")
    rss = result["quarters"]["server"]["rss_mib"]
    console.print(f"memory of the server, median of each quarter: {rss} MiB; leaks: {result['leaks'] or 'none'}")


def markdown_table(result: dict[str, Any]) -> str:
    """The table of docs/operations.md."""
    counts = Counter[str]()
    for kind in result["outcomes"].values():
        counts.update(kind)
    rechecked = f"{result['wrong']} of {result['rechecked']:,}"
    recovered = [fault["recovered_s"] for fault in result["faults"]]
    return (
        "| requests | answered whole | client left | 429, queue full | 503, engine restarting | other errors | lost | "
        "wrong, of those sent again | engines killed or hung | seconds to recover, median and most | leaks |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|\n"
        f"| {result['requests']:,} | {' | '.join(f'{counts[name]:,}' for name in OUTCOMES)} | {rechecked} | "
        f"{len(recovered)} | {statistics.median(recovered):.1f}, {max(recovered):.1f} | "
        f"{', '.join(result['leaks']) or 'none'} |"
    )


def main() -> None:
    parser = command.parser("soak", __doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="at least: until there has been each fault")
    parser.add_argument("--model", type=Path, default=command.DEMO, help="a name or folder, as for zeroshot serve")
    parser.add_argument("--concurrency", type=int, default=24, help="requests at once")
    parser.add_argument("--fault-interval-s", type=float, default=30.0, help="from one recovery to the next fault")
    parser.add_argument("--recheck-share", type=float, default=0.1, help="of whole answers, sent again at the end")
    parser.add_argument("--seed", type=int, default=0, help="of what is sent, and who leaves")
    parser.add_argument(
        "--log", type=Path, default=Path(tempfile.gettempdir()) / "soak-server.log", help="the server's"
    )
    arguments = parser.parse_args()
    settings = {
        "ZEROSHOT_ENGINE_HANG_TIMEOUT_S": "20",
        "ZEROSHOT_ENGINE_START_TIMEOUT_S": "180",
        "ZEROSHOT_MAX_QUEUED_SEQS": "64",
        "ZEROSHOT_DTYPE": "fp32",
    }
    with server_process(arguments.model, "--threads", "1", "--log-format", "json", log=arguments.log, **settings) as (
        url,
        process,
    ):
        result = asyncio.run(soak(url, process.pid, arguments))
    result = {
        "model": arguments.model.name,
        "minutes": arguments.minutes,
        "concurrency": arguments.concurrency,
        "settings": settings,
        "leaks": leaks(result),
    } | result
    command.write("soak", result, arguments.output)
    report(result)
    sys.exit(bool(result["lost"] or result["failed"] or result["wrong"] or result["leaks"]))


if __name__ == "__main__":
    main()
