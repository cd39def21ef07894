"""How many replicas a load needs, what they cost, and how long the slowest requests take.

    python -m benchmarks.capacity --price 0.5

1. One replica is measured through the whole cluster, with 1, 2, 4, … requests at once: requests a second and latency.
   Ray, proxy, ingress and load generator are on its core (`scaling.py`): two replicas on two cores are twice all that.
2. A queueing model takes that curve: requests come at random (Poisson), each goes to the less loaded of two random
   replicas, and a replica with k requests works on all of them at once, together as fast as measured with k at once.
3. The model is checked: two real replicas get requests at random times, and its latencies are compared with theirs.
4. For each rate asked for, the fewest replicas whose 99th percentile stays within the limit are found by simulation.

Prices are yours to say, for an hour of one replica. All requests are alike: what differs in a real load, makes its tail
longer than this one's. A replica comes with its share of ingresses and proxies.
"""

import argparse
import asyncio
import random
import time
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks import command
from benchmarks.capacity_model import Curve, percentile, replicas_needed, simulate
from benchmarks.ray_cluster import deploy, ray_cluster
from benchmarks.scaling import let_go_of_everything, pin_everything


def body(number: int, max_tokens: int) -> dict[str, Any]:
    return {"prompt": f"Number {number}", "max_tokens": max_tokens, "ignore_eos": True, "seed": number}


async def closed_loop(url: str, concurrency: int, max_tokens: int, seconds: float) -> dict[str, float]:
    """`concurrency` clients that each send their next request when they have the answer to the last."""
    start = time.perf_counter()
    latencies: list[float] = []

    async def work(client: httpx.AsyncClient, number: int) -> None:
        while time.perf_counter() - start < seconds:
            sent = time.perf_counter()
            (await client.post("/generate", json=body(number, max_tokens))).raise_for_status()
            latencies.append(time.perf_counter() - sent)

    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        await asyncio.gather(*(work(client, number) for number in range(concurrency)))
    elapsed = time.perf_counter() - start
    return {
        "concurrency": concurrency,
        "requests_per_s": round(len(latencies) / elapsed, 3),
        "median_s": round(percentile(latencies, 0.5), 4),
        "p99_s": round(percentile(latencies, 0.99), 4),
    }


async def open_loop(url: str, rate: float, max_tokens: int, seconds: float) -> list[float]:
    """Requests at random times, whether or not earlier ones are done. Latencies of those sent, in seconds."""
    source = random.Random(7)
    latencies: list[float] = []

    async def send(client: httpx.AsyncClient, number: int) -> None:
        sent = time.perf_counter()
        (await client.post("/generate", json=body(number, max_tokens))).raise_for_status()
        latencies.append(time.perf_counter() - sent)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client, asyncio.TaskGroup() as group:
        start = next_at = time.perf_counter()
        number = 0
        while next_at - start < seconds:
            group.create_task(send(client, number))
            number += 1
            next_at += source.expovariate(rate)
            await asyncio.sleep(max(0.0, next_at - time.perf_counter()))
    return latencies


def measure(arguments: argparse.Namespace) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """The curve of one replica, and the check of the model against two."""
    with ray_cluster(num_nodes=2) as url:
        deploy(model=str(arguments.model), min_replicas=1, num_threads=1)
        pin_everything(1)
        asyncio.run(closed_loop(url, 8, arguments.max_tokens, 5))
        points = [
            asyncio.run(closed_loop(url, concurrency, arguments.max_tokens, arguments.seconds))
            for concurrency in arguments.concurrency
        ]
        curve = Curve.of(points)
        let_go_of_everything()
        deploy(model=str(arguments.model), min_replicas=2, num_threads=1)
        pin_everything(2)
        asyncio.run(closed_loop(url, 8, arguments.max_tokens, 5))
        rate = round(arguments.check_load * 2 * curve.best, 3)
        real = asyncio.run(open_loop(url, rate, arguments.max_tokens, 2 * arguments.seconds))
    modelled = simulate(curve, num_replicas=2, rate=rate, num_requests=20_000)
    check = {
        "replicas": 2,
        "requests_per_s": rate,
        "requests": len(real),
        "measured": {f"p{q}_s": round(percentile(real, q / 100), 3) for q in (50, 95, 99)},
        "modelled": {f"p{q}_s": round(percentile(modelled, q / 100), 3) for q in (50, 95, 99)},
    }
    return points, check


def plan(curve: Curve, rates_per_minute: list[float], limit_s: float, price: float) -> list[dict[str, Any]]:
    rows = []
    for per_minute in rates_per_minute:
        replicas, latencies = replicas_needed(curve, per_minute / 60, limit_s)
        rows.append(
            {
                "requests_per_minute": per_minute,
                "replicas": replicas,
                "utilisation": round(per_minute / 60 / (replicas * curve.best), 3),
                "cost_per_hour": round(replicas * price, 2),
                "cost_per_million_requests": round(replicas * price / (per_minute * 60) * 1e6, 2),
                **{f"p{q}_s": round(percentile(latencies, q / 100), 3) for q in (50, 95, 99)},
            }
        )
    return rows


def draw(rows: list[dict[str, Any]], points: list[dict[str, float]], file: Path) -> None:
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.8))
    left.plot([p["concurrency"] for p in points], [p["requests_per_s"] for p in points], "o-")
    left.set(xscale="log", xlabel="requests at once", ylabel="requests/s", title="One replica, measured")
    right.loglog([row["requests_per_minute"] for row in rows], [row["replicas"] for row in rows], "o-")
    right.set(xlabel="requests/minute", ylabel="replicas", title="Replicas needed, simulated")
    for axes in (left, right):
        axes.grid(alpha=0.3, which="both")
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def as_markdown(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0])
    lines = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |", "|" + "---:|" * len(names)]
    return "\n".join([*lines, *("| " + " | ".join(f"{row[name]:,}" for name in names) + " |" for row in rows)]) + "\n"


def main() -> None:
    parser = command.parser("capacity", __doc__)
    parser.add_argument("--model", type=Path, default=command.DEMO, help="a name or folder, as for zeroshot serve")
    parser.add_argument("--price", type=float, default=1.0, help="of one replica for an hour")
    parser.add_argument("--max-tokens", type=int, default=64, help="of each request")
    parser.add_argument("--limit", type=float, help="seconds the 99th percentile may take; default: 3 x one alone")
    levels, rates = [1, 2, 4, 8, 16, 32, 64], [100, 1_000, 10_000, 100_000, 1_000_000]
    parser.add_argument("--concurrency", type=int, nargs="+", default=levels, help="requests at once, at one replica")
    parser.add_argument("--rates", type=float, nargs="+", default=rates, help="requests a minute to plan for")
    parser.add_argument("--check-load", type=float, default=0.6, help="of what two replicas can do, for the check")
    parser.add_argument("--seconds", type=float, default=15, help="for each point")
    chart = command.ROOT / "docs" / "images" / "capacity.png"
    parser.add_argument("--chart", type=Path, default=chart, help="the picture of it")
    arguments = parser.parse_args()
    points, check = measure(arguments)
    curve = Curve.of(points)
    limit_s = arguments.limit or 3 * points[0]["median_s"]
    rows = plan(curve, arguments.rates, limit_s, arguments.price)
    result = {
        "max_tokens": arguments.max_tokens,
        "price_per_replica_hour": arguments.price,
        "limit_p99_s": round(limit_s, 3),
        "one_replica": points,
        "check_with_two_replicas": check,
        "plan": rows,
    }
    command.write("capacity", result, arguments.output)
    arguments.output.with_suffix(".md").write_text(as_markdown(rows))
    draw(rows, points, arguments.chart)
    table = Table(*[name.replace("_", " ") for name in rows[0]])
    for row in rows:
        table.add_row(*[f"{value:,}" for value in row.values()])
    Console().print(table, check)


if __name__ == "__main__":
    main()
