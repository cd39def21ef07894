"""(f) The server over HTTP, under a load from several processes: one could not make requests as fast."""

import multiprocessing
import sys
import tempfile
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

from benchmarks.cpu import random_prompts, request_body
from benchmarks.gpu import load
from benchmarks.gpu.run import Run
from benchmarks.http_server import server_process
from benchmarks.random_checkpoint import random_checkpoint

_ROOM = {
    "ZEROSHOT_MAX_NUM_BATCHED_TOKENS": "8192",
    # All requests come at once, and with cold kernels none is admitted for seconds: none shall be turned away.
    "ZEROSHOT_MAX_QUEUED_SEQS": "2048",
    "ZEROSHOT_MAX_QUEUED_TOKENS": "2097152",
}


def measure(run: Run) -> None:
    """Into results["http"]: {"plain" or "stream": {"tokens_per_s", "requests", "processes"}}."""
    into, sizes = run.results.setdefault("http", {}), run.sizes
    processes = multiprocessing.get_context("spawn").Pool(sizes.http_processes)
    with tempfile.TemporaryDirectory() as folder, processes as pool:
        pool.map(load.ready, range(sizes.http_processes), chunksize=1)
        checkpoint = random_checkpoint(sizes.http_model, Path(folder))
        arguments = ("--device", "cpu" if run.is_dry else "cuda", "--max-num-seqs", str(sizes.http_requests))
        log = Path(folder) / "server.log"
        try:
            with server_process(checkpoint, *arguments, log=log, **_ROOM) as (url, _):
                _tokens_per_s(run, pool, url, "plain", seed=0)  # warms everything up
                for seed, name in enumerate(("plain", "stream"), 1):
                    run.attempt(into, name, partial(_measured, run, pool, url, name, seed))
        except Exception:
            sys.stderr.write(log.read_text(errors="replace")[-4000:])
            raise


def _measured(run: Run, pool: Pool, url: str, name: str, seed: int) -> dict[str, Any]:
    tokens_per_s = _tokens_per_s(run, pool, url, name, seed)
    return {"tokens_per_s": tokens_per_s, "requests": run.sizes.http_requests, "processes": run.sizes.http_processes}


def _tokens_per_s(run: Run, pool: Pool, url: str, name: str, seed: int) -> float:
    """From the first request sent to the last answer received, over all processes. Another seed, other prompts."""
    sizes = run.sizes
    prompts = random_prompts(sizes.http_requests, sizes.http_tokens, seed=seed)
    bodies = [request_body(prompt, sizes.http_tokens, name == "stream") for prompt in prompts]
    shares = [bodies[i :: sizes.http_processes] for i in range(sizes.http_processes)]
    spans = pool.starmap(load.client, [(url, share) for share in shares], chunksize=1)
    return sizes.http_requests * sizes.http_tokens / (max(end for _, end in spans) - min(start for start, _ in spans))
