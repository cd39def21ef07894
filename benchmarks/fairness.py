"""How much do long prompts that arrive hold up the streams that run? Measured for several step budgets.

    python -m benchmarks.fairness               # GPT-2 124M's shape: the default, and 64 to 512 tokens a step

Four streams run; the times between their tokens are taken with nothing else going on, and while prompts of 1000 tokens
arrive one after the other. The step budget (`ZEROSHOT_MAX_NUM_BATCHED_TOKENS`) bounds the wait: a prompt is run in
chunks of it, with one token for every stream in each step. By default chunks are smaller while streams run.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from benchmarks import command
from benchmarks.cpu import random_prompts
from benchmarks.http_server import running_server
from benchmarks.random_checkpoint import SIZES, random_checkpoint

NUM_STREAMS = 4


def main() -> None:
    parser = command.parser("fairness", __doc__)
    parser.add_argument("--size", choices=SIZES, default="124m", help="the model's shape")
    parser.add_argument("--budgets", type=int, nargs="+", default=[64, 128, 256, 512], help="tokens a step")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each measurement")
    parser.add_argument("--long-prompt-tokens", type=int, default=1000, help="of each prompt that arrives")
    parser.add_argument("--checkpoints", type=Path, default=Path(tempfile.gettempdir()), help="where to keep them")
    arguments = parser.parse_args()
    load_average = os.getloadavg()[0]  # of the last minute, before we add to it
    checkpoint = random_checkpoint(arguments.size, arguments.checkpoints)
    rows = [measure(checkpoint, budget, arguments) for budget in [None, *arguments.budgets]]
    result = {
        "load_average": load_average,
        "model": f"GPT-2 {arguments.size}, random values, fp32",
        "streams": NUM_STREAMS,
        "long_prompt_tokens": arguments.long_prompt_tokens,
        "budgets": rows,
    }
    command.write("fairness", result, arguments.output)
    Console().print(markdown_table(result))


def measure(checkpoint: Path, budget: int | None, arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds between tokens, and how long prompts took, at this step budget. None: the default."""
    environment = {"ZEROSHOT_SPECULATIVE_NGRAM": "0"}  # else several tokens may come at once
    if budget is not None:
        environment["ZEROSHOT_MAX_NUM_BATCHED_TOKENS"] = str(budget)
    with running_server(checkpoint, **environment) as url:
        asyncio.run(run_load(url, 2.0, 0))  # warm up
        alone, _ = asyncio.run(run_load(url, arguments.seconds, 0))
        beside, prefills = asyncio.run(run_load(url, arguments.seconds, arguments.long_prompt_tokens))
    return {
        "max_num_batched_tokens": budget,
        "alone_ms": percentiles(alone),
        "beside_long_prompts_ms": percentiles(beside),
        "long_prompts_answered": len(prefills),
        "long_prompt_ms": round(1000 * statistics.median(prefills), 1) if prefills else None,
    }


async def run_load(url: str, seconds: float, long_prompt_tokens: int) -> tuple[list[float], list[float]]:
    """(seconds between tokens of all streams, seconds each long prompt took to its first token)."""
    gaps: list[float] = []
    prefills: list[float] = []
    end = time.perf_counter() + seconds
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        work = [stream(client, prompt, end, gaps) for prompt in random_prompts(NUM_STREAMS, 32, seed=int(end) % 10_000)]
        if long_prompt_tokens:
            work.append(long_prompts(client, long_prompt_tokens, end, prefills))
        await asyncio.gather(*work)
    return gaps, prefills


async def stream(client: httpx.AsyncClient, prompt: list[int], end: float, gaps: list[float]) -> None:
    """One stream after another until `end`; the first token of each has no gap before it."""
    while time.perf_counter() < end:
        body = {"prompt": prompt, "max_tokens": 900, "ignore_eos": True, "return_token_ids": True, "stream": True}
        last: float | None = None
        async for now in token_times(client, body):
            if last is not None:
                gaps.append(now - last)
            last = now
            if now > end:
                break


async def token_times(client: httpx.AsyncClient, body: dict[str, Any]) -> AsyncGenerator[float, None]:
    async with client.stream("POST", "/generate", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                yield time.perf_counter()


async def long_prompts(client: httpx.AsyncClient, num_tokens: int, end: float, prefills: list[float]) -> None:
    seed = 0
    await asyncio.sleep(0.5)
    while time.perf_counter() < end:
        seed += 1
        body = {"prompt": random_prompts(1, num_tokens, seed=seed)[0], "max_tokens": 1}
        started = time.perf_counter()
        (await client.post("/generate", json=body)).raise_for_status()
        prefills.append(time.perf_counter() - started)


def percentiles(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    values = {"p50": cuts[49], "p99": cuts[98], "max": max(seconds)}
    return {"count": len(seconds)} | {name: round(1000 * value, 1) for name, value in values.items()}


def markdown_table(result: dict[str, Any]) -> str:
    """One row a step budget; the ratio is of the p99 beside long prompts to the p50 alone."""
    lines = [
        "| tokens a step | alone p50 / p99 ms | beside 1000-token prompts p50 / p99 ms | p99 beside / p50 alone | "
        "long prompt ms |",
        "|---|---|---|---|---|",
    ]
    for row in result["budgets"]:
        alone, beside = row["alone_ms"], row["beside_long_prompts_ms"]
        budget = row["max_num_batched_tokens"] or "default"
        lines.append(
            f"| {budget} | {alone['p50']:.0f} / {alone['p99']:.0f} | {beside['p50']:.0f} / "
            f"{beside['p99']:.0f} | {beside['p99'] / alone['p50']:.1f}x | {row['long_prompt_ms']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
