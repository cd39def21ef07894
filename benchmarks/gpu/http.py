"""(f) The server over HTTP, under a load from several processes: one could not make requests as fast.

The same requests first go to the engine without HTTP. Their average context while decoding is 512, as in (d).
"""

import multiprocessing
import sys
import tempfile
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

from benchmarks.cpu import random_prompts, request_body
from benchmarks.gpu import load
from benchmarks.gpu.engine import all_at_once, make_engine
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
    """Into results["http"]: {"engine", "plain" or "stream": {"tokens_per_s", "requests", "of_engine"}}."""
    into, sizes = run.results.setdefault("http", {}), run.sizes
    run.attempt(into, "engine", partial(_engine_alone, run))
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
    measured = {
        "tokens_per_s": tokens_per_s,
        "requests": run.sizes.http_requests,
        "processes": run.sizes.http_processes,
    }
    alone = run.results["http"]["engine"].get("tokens_per_s")
    return measured | ({"of_engine": tokens_per_s / alone} if alone else {})


def _engine_alone(run: Run) -> dict[str, Any]:
    sizes = run.sizes
    count, num_prompt, num_output = sizes.http_requests, sizes.http_prompt_tokens, sizes.http_tokens
    tokens_each = -(-(num_prompt + num_output) // 64) * 64
    engine = make_engine(run, sizes.shapes[sizes.http_model], count, tokens_each=tokens_each)
    rates = [all_at_once(run, engine, count, num_prompt, num_output, f"alone{i}-") for i in range(2)]
    return {"tokens_per_s": rates[-1], "requests": count}


def _tokens_per_s(run: Run, pool: Pool, url: str, name: str, seed: int) -> float:
    """From the first request sent to the last answer received, over all processes. Another seed, other prompts."""
    sizes = run.sizes
    prompts = random_prompts(sizes.http_requests, sizes.http_prompt_tokens, seed=seed)
    bodies = [request_body(prompt, sizes.http_tokens, name == "stream") for prompt in prompts]
    shares = [bodies[i :: sizes.http_processes] for i in range(sizes.http_processes)]
    spans = pool.starmap(load.client, [(url, share) for share in shares], chunksize=1)
    return sizes.http_requests * sizes.http_tokens / (max(end for _, end in spans) - min(start for start, _ in spans))
