"""This server against Hugging Face, CTranslate2 and llama.cpp, on the same checkpoint, threads and machine, in one run.

    python -m benchmarks.cpu                     # GPT-2 124M's shape: 1, 8, 32 and 64 at once, 5 rounds, all systems
    python -m benchmarks.cpu --concurrency 8 --merge              # one level; keep what the result file has of others
    python -m benchmarks.cpu --rounds 2 --concurrency 1 --systems "zeroshot int8, HTTP" "Hugging Face generate"
    python -m benchmarks.cpu --sampled --output benchmarks/results/cpu_sampled.json     # with a temperature and filters

The rounds are interleaved (each system once, then again) and medians compared, since machines drift; ratios are only
taken within one call. Whichever is not measured is idle. Prompt 32 tokens, output 64. "prefill" is one prompt
of 512 tokens and one token of output.

This server guesses no tokens here, as the peers don't: what a random model writes repeats itself, and the guesses would
be right. `speculative.py` has what they gain.

First this server's KV cache is filled once, as it is when a server has been up for a while: a virtual machine may get
its memory from its host page by page as it is touched, 2 MB in 5 ms, and the peers have touched theirs after a round.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import command
from benchmarks.cpu_peers import peers
from benchmarks.cpu_tokens import GREEDY, SAMPLED, Sampling
from benchmarks.http_load import seconds_for
from benchmarks.http_server import running_server
from benchmarks.random_checkpoint import SIZES, random_checkpoint

BASELINE = "Hugging Face generate"
SERVED = {
    "zeroshot fp32, HTTP": ("fp32", False),
    "zeroshot fp32, HTTP stream": ("fp32", True),
    "zeroshot bf16, HTTP": ("bf16", False),
    "zeroshot bf16, HTTP stream": ("bf16", True),
    "zeroshot int8, HTTP": ("int8", False),
    "zeroshot int8, HTTP stream": ("int8", True),
}
PREFILL = "prefill"
PREFILL_TOKENS = 512
FILLING = (120, 500)
"""Prompts, and tokens of each: what a KV cache of 2 GiB holds of GPT-2 124M in fp16."""

Measured = Callable[[list[list[int]], int], float]
"""(prompts, output tokens) -> seconds."""


def main() -> None:
    parser = command.parser("cpu", __doc__)
    parser.add_argument("--size", choices=SIZES, default="124m", help="the model's shape")
    parser.add_argument("--concurrency", nargs="+", default=["1", "8", "32", "64", PREFILL], help="requests at once")
    parser.add_argument("--systems", nargs="+", help="by their names in the table; default: all that are installed")
    parser.add_argument("--rounds", type=int, default=5, help="that count")
    parser.add_argument("--prompt-tokens", type=int, default=32, help="of each request")
    parser.add_argument("--output-tokens", type=int, default=64, help="of each request")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each system")
    parser.add_argument("--checkpoints", type=Path, default=Path(tempfile.gettempdir()), help="where to keep them")
    parser.add_argument("--sampled", action="store_true", help=f"not greedy: {SAMPLED}")
    parser.add_argument("--merge", action="store_true", help="keep the output file's other concurrencies")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    checkpoint = random_checkpoint(arguments.size, arguments.checkpoints)
    settings = {
        "model": f"GPT-2 {arguments.size}, random values",
        "threads": arguments.threads,
        "prompt_tokens": arguments.prompt_tokens,
        "output_tokens": arguments.output_tokens,
        "sampling": asdict(sampling_of(arguments)),
    }
    earlier = json.loads(arguments.output.read_text()) if arguments.merge and arguments.output.exists() else None
    for measured in measure(checkpoint, arguments):
        result = settings | measured
        if earlier is not None:
            result = merged(earlier, result)
        command.write("cpu", result, arguments.output)
    report(result)


def measure(checkpoint: Path, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What the result file says of a run, after each level: a run of an hour that is stopped has those before.

    tokens_per_second: {system: {concurrency: one number a round}}.
    """
    sampling = sampling_of(arguments)
    found, versions = peers(checkpoint, arguments.threads, sampling)
    names = arguments.systems or [*SERVED, *found]
    rates: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    seconds_to_ready: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        urls: dict[str, str] = {}
        for dtype in sorted({SERVED[name][0] for name in names if name in SERVED}):
            started = time.perf_counter()
            options = ("--dtype", dtype, "--threads", str(arguments.threads))
            server = running_server(checkpoint, *options, ZEROSHOT_SPECULATIVE_NGRAM="0")
            urls[dtype] = stack.enter_context(server)
            seconds_to_ready[dtype] = round(time.perf_counter() - started, 1)
        systems: dict[str, Measured] = {
            name: over_http(urls[SERVED[name][0]], SERVED[name][1], sampling)
            if name in SERVED
            else found[name]().seconds
            for name in names
        }
        load_before = os.getloadavg()[0]
        ours = [over_http(url, False, sampling) for url in urls.values()]
        ours += [systems[name] for name in names if name.endswith("engine alone")]
        # A single round is a trial, whose figures nobody keeps.
        for fill in track(ours if arguments.rounds > 1 else [], "filling KV caches", transient=True):
            fill(random_prompts(*FILLING, seed=0), 1)
        cases = [(level, number) for level in arguments.concurrency for number in range(arguments.rounds + 1)]
        for level, round_number in track(cases, transient=True):
            num_prompts, length, output_tokens = shape(level, arguments)
            for index, (name, seconds) in enumerate(systems.items()):
                # Another seed for each system: the streamed runs must not find the plain ones' prompts in the cache.
                prompts = random_prompts(num_prompts, length, seed=round_number * 100 + index)
                elapsed = seconds(prompts, output_tokens)
                num_tokens = length if level == PREFILL else num_prompts * output_tokens
                if round_number > 0:  # the first one warms everything up
                    rates[name].setdefault(level, []).append(round(num_tokens / elapsed, 1))
            if round_number == arguments.rounds:
                yield {
                    "versions": versions,
                    "load_average_before": round(load_before, 1),
                    "seconds_to_ready": seconds_to_ready,
                    "tokens_per_second": rates,
                }


def shape(level: str, arguments: argparse.Namespace) -> tuple[int, int, int]:
    """(prompts, tokens of each, tokens of output of each)."""
    if level == PREFILL:
        return 1, PREFILL_TOKENS, 1
    return int(level), arguments.prompt_tokens, arguments.output_tokens


def sampling_of(arguments: argparse.Namespace) -> Sampling:
    return SAMPLED if arguments.sampled else GREEDY


def over_http(url: str, is_stream: bool, sampling: Sampling = GREEDY) -> Measured:
    def seconds(prompts: list[list[int]], output_tokens: int) -> float:
        bodies = [request_body(prompt, output_tokens, is_stream, sampling) for prompt in prompts]
        return asyncio.run(seconds_for(url, bodies))

    return seconds


def random_prompts(count: int, num_tokens: int, *, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed * 10_007 + count)
    return torch.randint(0, 50256, (count, num_tokens), generator=generator).tolist()  # type: ignore[no-any-return]


def request_body(prompt: list[int], output_tokens: int, is_stream: bool, sampling: Sampling = GREEDY) -> dict[str, Any]:
    body = {"prompt": prompt, "max_tokens": output_tokens, "ignore_eos": True, **asdict(sampling)}
    return body | {"stream": True} if is_stream else body


def merged(earlier: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """The new result with the levels it did not measure taken from the earlier one. Each level is of one call."""
    rates = {name: dict(row) for name, row in earlier["tokens_per_second"].items()}
    measured = {level for row in result["tokens_per_second"].values() for level in row}
    for row in rates.values():
        for level in measured:
            row.pop(level, None)
    for name, row in result["tokens_per_second"].items():
        rates.setdefault(name, {}).update(row)
    return result | {"tokens_per_second": {name: row for name, row in rates.items() if row}}


def medians(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    rates = result["tokens_per_second"]
    return {name: {n: statistics.median(values) for n, values in row.items()} for name, row in rates.items()}


def levels_of(rows: dict[str, dict[str, float]]) -> list[str]:
    """Whatever was measured, in whichever order: few streams first, the prompt last."""
    found = {level for row in rows.values() for level in row}
    return [*sorted(found - {PREFILL}, key=int), *(found & {PREFILL})]


def title(level: str) -> str:
    return f"prefill {PREFILL_TOKENS}" if level == PREFILL else f"{level} at once"


def cells(result: dict[str, Any], digits: int) -> tuple[list[str], dict[str, list[str]]]:
    """(columns, {system: cells}): medians, and the ratio to the baseline where it was measured."""
    rows = medians(result)
    levels = levels_of(rows)
    baseline = rows.get(BASELINE, {})

    def cell(row: dict[str, float], level: str) -> str:
        if level not in row:
            return ""
        return f"{row[level]:.0f}" + (f" ({row[level] / baseline[level]:.{digits}f}x)" if level in baseline else "")

    return levels, {name: [cell(row, level) for level in levels] for name, row in rows.items()}


def markdown_table(result: dict[str, Any]) -> str:
    """The table of the README and of docs/cpu.md."""
    levels, rows = cells(result, 1)
    lines = ["| | " + " | ".join(map(title, levels)) + " |", "|---" * (len(levels) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(row) + " |" for name, row in rows.items()]
    return "\n".join(lines)


def report(result: dict[str, Any]) -> None:
    levels, rows = cells(result, 2)
    table = Table("", *map(title, levels), title=f"Tokens/s, {result['model']}, medians")
    for name, row in rows.items():
        table.add_row(name, *row)
    console = Console()
    console.print(table)
    console.print("ready after", result["seconds_to_ready"], "s; libraries:", result["versions"])


if __name__ == "__main__":
    main()
