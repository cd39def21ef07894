"""(f) The server over HTTP, under a load from several processes: one could not make requests as fast."""

import asyncio
import multiprocessing
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cpu import random_prompts, request_body
from benchmarks.gpu.run import Run
from benchmarks.http_server import running_server, seconds_for
from benchmarks.random_checkpoint import random_checkpoint


def measure(run: Run) -> None:
    """Into results["http"]: {"plain" or "stream": {"tokens_per_s", "requests", "of_engine"}}."""
    into = run.results.setdefault("http", {})
    sizes = run.sizes
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = random_checkpoint(sizes.http_model, Path(folder))
        device = "cpu" if run.is_dry else "cuda"
        arguments = ("--device", device, "--max-num-seqs", str(sizes.http_requests))
        with running_server(checkpoint, *arguments, ZEROSHOT_MAX_NUM_BATCHED_TOKENS="8192") as url:
            for name in ("plain", "stream"):
                _load(run, url, name)  # warms up
                run.attempt(into, name, partial(_measured, run, url, name))


def _measured(run: Run, url: str, name: str) -> dict[str, Any]:
    tokens_per_s = run.sizes.http_requests * run.sizes.http_tokens / _load(run, url, name)
    return {"tokens_per_s": tokens_per_s, "requests": run.sizes.http_requests, "processes": run.sizes.http_processes}


def _load(run: Run, url: str, name: str) -> float:
    """Seconds from the first request sent to the last answer received, over all processes."""
    sizes = run.sizes
    prompts = random_prompts(sizes.http_requests, sizes.http_tokens, seed=time.monotonic_ns() % 10**6)
    bodies = [request_body(prompt, sizes.http_tokens, name == "stream") for prompt in prompts]
    shares = [bodies[i :: sizes.http_processes] for i in range(sizes.http_processes)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(sizes.http_processes) as pool:
        pool.map(_ready, range(sizes.http_processes), chunksize=1)
        spans = pool.starmap(_client, [(url, share) for share in shares], chunksize=1)
    return max(end for _, end in spans) - min(start for start, _ in spans)


def _ready(_index: int) -> None:
    """Imports are done when this runs; long enough that every process gets one."""
    time.sleep(0.2)


def _client(url: str, bodies: list[dict[str, Any]]) -> tuple[float, float]:
    """When it began and when it ended, on the clock that all processes of a machine share."""
    start = time.monotonic()
    seconds = asyncio.run(seconds_for(url, bodies))
    end = time.monotonic()
    return max(start, end - seconds), end
