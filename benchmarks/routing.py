"""What prefix-aware routing is worth: the prefix cache's hit rate on two replicas, with it and with Serve's own router.

    python -m benchmarks.routing

Many few-shot tasks, whose examples together are more than one replica's KV cache holds, and about what two hold. Each
router is deployed anew and gets the same requests in the same order: a random task each, inputs that are all different.
Serve's own router takes the less loaded of two random replicas.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from benchmarks import command
from benchmarks.ray_cluster import deploy, ray_cluster

ROUTERS = {"two random choices": False, "by prefix": True}
WORDS = ["river", "night", "window", "letter", "garden", "bread", "winter", "street", "music", "stone", "door"]


def write_tasks(folder: Path, num_tasks: int, num_examples: int) -> None:
    """A prompt file for each task: `num_examples` examples of random words, no two tasks alike."""
    source = random.Random(0)
    for task in range(num_tasks):
        examples = "".join(
            f"Line {source.randrange(10**6)}: {' '.join(source.choices(WORDS, k=8))}\\n" for _ in range(num_examples)
        )
        (folder / f"task_{task}.yaml").write_text(
            f"name: task_{task}\nsummary: Task {task}.\n"
            "inputs:\n  text: {type: string, description: The text.}\n"
            f'template: "Task {task:04}: {examples}Text: {{text}}\\nLine:"\n'
            "decoding: {temperature: 0, max_tokens: 4}\noutput: {kind: text}\n"
        )


async def run(url: str, num_tasks: int, num_requests: int, concurrency: int, seed: int) -> dict[str, Any]:
    source = random.Random(seed)
    bodies = [(source.randrange(num_tasks), {"text": f"number {source.randrange(10**9)}"}) for _ in range(num_requests)]
    waiting = iter(bodies)
    usage, seconds = [], []

    async def work(client: httpx.AsyncClient) -> None:
        for task, body in waiting:
            start = time.perf_counter()
            response = await client.post(f"/tasks/task_{task}", json=body)
            response.raise_for_status()
            seconds.append(time.perf_counter() - start)
            usage.append(response.json()["usage"])

    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        start = time.perf_counter()
        await asyncio.gather(*(work(client) for _ in range(concurrency)))
        elapsed_s = time.perf_counter() - start
    prompt, cached = (sum(one[name] for one in usage) for name in ("prompt_tokens", "cached_tokens"))
    return {
        "requests": len(usage),
        "prompt_tokens": prompt,
        "cached_tokens": cached,
        "hit_rate": round(cached / prompt, 4),
        "requests_per_s": round(len(usage) / elapsed_s, 2),
        "median_ms": round(1000 * statistics.median(seconds), 1),
        "p95_ms": round(1000 * statistics.quantiles(seconds, n=20)[-1], 1),
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    results = {}
    with tempfile.TemporaryDirectory() as name, ray_cluster(num_nodes=2) as url:
        write_tasks(Path(name), arguments.tasks, arguments.examples)
        for router, is_by_prefix in ROUTERS.items():
            deploy(
                model=str(arguments.model),
                prompts=name,
                min_replicas=2,
                kv_cache_tokens=arguments.kv_cache_tokens,
                prefix_routing=is_by_prefix,
            )
            asyncio.run(run(url, arguments.tasks, arguments.requests // 2, arguments.concurrency, seed=1))
            results[router] = asyncio.run(run(url, arguments.tasks, arguments.requests, arguments.concurrency, seed=2))
            Console().print(router, results[router])
    return results


def main() -> None:
    parser = command.parser("routing", __doc__)
    parser.add_argument("--model", type=Path, default=command.DEMO, help="a name or folder, as for zeroshot serve")
    parser.add_argument("--tasks", type=int, default=32, help="each with examples of its own")
    parser.add_argument("--examples", type=int, default=16, help="of each task; about 13 tokens each")
    parser.add_argument("--kv-cache-tokens", type=int, default=5120, help="of each replica")
    parser.add_argument("--requests", type=int, default=400, help="measured, after half as many to fill the caches")
    parser.add_argument("--concurrency", type=int, default=8, help="requests at once")
    arguments = parser.parse_args()
    result = {
        "replicas": 2,
        "tasks": arguments.tasks,
        "kv_cache_tokens_per_replica": arguments.kv_cache_tokens,
        "concurrency": arguments.concurrency,
        "routers": measure(arguments),
    }
    command.write("routing", result, arguments.output)


if __name__ == "__main__":
    main()
