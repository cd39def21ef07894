"""Throughput of one replica on one core, and of two replicas on two: the scaling efficiency of the cluster.

    python -m benchmarks.scaling

With one replica everything there is, Ray's processes, proxy, ingress, replica, engine and the load generator, is held
on one core. With two, each replica with its engine has a core of its own, and the rest runs on either. So what is
doubled is the whole machine. Efficiency: tokens a second with two, by twice those with one.
"""

import argparse
import asyncio
import os
import random
import statistics
import time
from pathlib import Path

import httpx
import psutil
from rich.console import Console

from benchmarks import command
from benchmarks.ray_cluster import deploy, ray_cluster


def pin_everything(num_replicas: int) -> None:
    """This process and all it has started on the first cores, each engine replica on one of them."""
    everything = [psutil.Process(), *psutil.Process().children(recursive=True)]
    replicas = [process for process in everything if "ServeReplica:zeroshot:engine" in " ".join(process.cmdline())]
    if len(replicas) != num_replicas:
        raise RuntimeError(f"{len(replicas)} replicas, not the {num_replicas} that were deployed")
    for process in everything:
        pin(process, set(range(num_replicas)))
    for number, replica in enumerate(replicas):
        for process in (replica, *replica.children(recursive=True)):
            pin(process, {number})


def let_go_of_everything() -> None:
    """All of it on any core again, and what it starts from now on as well."""
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        pin(process, set(range(os.cpu_count() or 1)))


def pin(process: psutil.Process, cores: set[int]) -> None:
    for thread in process.threads():
        os.sched_setaffinity(thread.id, cores)


async def tokens_per_second(url: str, num_clients: int, max_tokens: int, seconds: float) -> float:
    """Plain requests, answered whole, half as many tokens to half as many more. Counts those that end within the time.

    Short ones of different lengths: what is left unfinished at the end is then little, and as much with one replica.
    """
    deadline = time.perf_counter() + seconds
    num_tokens = 0

    async def work(client: httpx.AsyncClient, number: int) -> None:
        nonlocal num_tokens
        source = random.Random(number)
        while time.perf_counter() < deadline:
            length = source.randint(max_tokens // 2, 3 * max_tokens // 2)
            body = {"prompt": f"Client {number}", "max_tokens": length, "ignore_eos": True, "seed": number}
            response = await client.post("/generate", json=body)
            response.raise_for_status()
            if time.perf_counter() < deadline:
                num_tokens += response.json()["usage"]["completion_tokens"]

    async with httpx.AsyncClient(base_url=url, timeout=120, limits=httpx.Limits(max_connections=None)) as client:
        await asyncio.gather(*(work(client, number) for number in range(num_clients)))
    return num_tokens / seconds


def measure(arguments: argparse.Namespace) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {"1": [], "2": []}
    with ray_cluster(num_nodes=2) as url:
        for _ in range(arguments.rounds):
            for num_replicas in (1, 2):
                let_go_of_everything()
                deploy(model=str(arguments.model), min_replicas=num_replicas, num_threads=1)
                pin_everything(num_replicas)
                clients = num_replicas * arguments.clients
                asyncio.run(tokens_per_second(url, clients, arguments.max_tokens, arguments.seconds / 4))
                rate = asyncio.run(tokens_per_second(url, clients, arguments.max_tokens, arguments.seconds))
                rates[str(num_replicas)].append(round(rate, 1))
                Console().print(f"{num_replicas} replicas: {rate:.1f} tokens/s")
    return rates


def main() -> None:
    parser = command.parser("scaling", __doc__)
    parser.add_argument("--model", type=Path, default=command.DEMO, help="a name or folder, as for zeroshot serve")
    parser.add_argument("--clients", type=int, default=16, help="for each replica")
    parser.add_argument("--max-tokens", type=int, default=32, help="on average")
    parser.add_argument("--seconds", type=float, default=30, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2, help="with one replica and with two, by turns")
    arguments = parser.parse_args()
    rates = measure(arguments)
    medians = {number: statistics.median(values) for number, values in rates.items()}
    result = {
        "clients_per_replica": arguments.clients,
        "max_tokens": arguments.max_tokens,
        "tokens_per_second": rates,
        "efficiency": round(medians["2"] / (2 * medians["1"]), 3),
    }
    command.write("scaling", result, arguments.output)
    Console().print(f"efficiency {result['efficiency']}")


if __name__ == "__main__":
    main()
