"""This server over HTTP against Hugging Face `generate`, on the same checkpoint, threads and machine, in one run.

    python -m benchmarks.cpu                    # GPT-2 124M's shape: 1, 8 and 32 concurrent requests, 5 rounds
    python -m benchmarks.cpu --rounds 2 --concurrency 1 8

The rounds are interleaved (ours, theirs, ours, …) and the medians compared, since machines drift. Whichever is not
measured is idle. Prompt 32 tokens, output 64, greedy.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import GPT2LMHeadModel

from benchmarks.http_server import running_server, seconds_for
from benchmarks.machine import describe_machine
from benchmarks.random_checkpoint import SIZES, random_checkpoint

RESULTS = Path(__file__).parent / "results"
SYSTEMS = ("zeroshot, HTTP", "zeroshot, HTTP stream", "Hugging Face generate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="124m")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--checkpoints", type=Path, default=Path(tempfile.gettempdir()), help="where to keep them")
    parser.add_argument("--output", type=Path, default=RESULTS / "cpu.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    checkpoint = random_checkpoint(arguments.size, arguments.checkpoints)
    rates, seconds_to_ready = measure(checkpoint, arguments)
    result = {
        "command": "python -m benchmarks.cpu " + " ".join(sys.argv[1:]),
        "machine": describe_machine(),
        "model": f"GPT-2 {arguments.size}, random values, fp32",
        "threads": arguments.threads,
        "prompt_tokens": arguments.prompt_tokens,
        "output_tokens": arguments.output_tokens,
        "seconds_to_ready": round(seconds_to_ready, 1),
        "tokens_per_second": rates,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    report(result)


def measure(checkpoint: Path, arguments: argparse.Namespace) -> tuple[dict[str, dict[str, list[float]]], float]:
    """{system: {concurrency: output tokens per second, one a round}}, and how long the server took to be ready."""
    theirs = GPT2LMHeadModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    rates: dict[str, dict[str, list[float]]] = {name: {str(n): [] for n in arguments.concurrency} for name in SYSTEMS}
    started = time.perf_counter()
    with running_server(checkpoint, "--threads", str(arguments.threads)) as url, Progress(transient=True) as progress:
        seconds_to_ready = time.perf_counter() - started
        bar = progress.add_task("measuring", total=(arguments.rounds + 1) * len(arguments.concurrency) * len(SYSTEMS))
        for round_number in range(arguments.rounds + 1):  # the first one warms everything up
            for concurrency in arguments.concurrency:
                prompts = random_prompts(concurrency, arguments.prompt_tokens, seed=round_number)
                tokens = concurrency * arguments.output_tokens
                for name in SYSTEMS:
                    if name == "Hugging Face generate":
                        seconds = hugging_face_seconds(theirs, prompts, arguments.output_tokens)
                    else:
                        bodies = [request_body(p, arguments.output_tokens, "stream" in name) for p in prompts]
                        seconds = asyncio.run(seconds_for(url, bodies))
                    if round_number > 0:
                        rates[name][str(concurrency)].append(round(tokens / seconds, 1))
                    progress.advance(bar)
                    # Another seed for each system, or the second one would find the first one's prompts cached.
                    prompts = random_prompts(concurrency, arguments.prompt_tokens, seed=round_number + 1000)
    return rates, seconds_to_ready


def random_prompts(count: int, num_tokens: int, *, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed * 10_007 + count)
    return torch.randint(0, 50256, (count, num_tokens), generator=generator).tolist()  # type: ignore[no-any-return]


def request_body(prompt: list[int], output_tokens: int, is_stream: bool) -> dict[str, Any]:
    body = {"prompt": prompt, "max_tokens": output_tokens, "temperature": 0, "ignore_eos": True}
    return body | {"stream": True} if is_stream else body


def hugging_face_seconds(model: GPT2LMHeadModel, prompts: list[list[int]], output_tokens: int) -> float:
    ids = torch.tensor(prompts)
    start = time.perf_counter()
    with torch.inference_mode():
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=output_tokens,
            min_new_tokens=output_tokens,
            do_sample=False,
            pad_token_id=50256,
        )
    if output.shape[1] != ids.shape[1] + output_tokens:
        raise RuntimeError(f"asked Hugging Face for {output_tokens} tokens, got {output.shape}")
    return time.perf_counter() - start


def medians(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    rates = result["tokens_per_second"]
    return {name: {n: statistics.median(values) for n, values in row.items()} for name, row in rates.items()}


def markdown_table(result: dict[str, Any]) -> str:
    """The README's table: medians, and the ratio to Hugging Face."""
    rows = medians(result)
    baseline = rows["Hugging Face generate"]
    lines = ["| | " + " | ".join(f"{n} at once" for n in baseline) + " |", "|---" * (len(baseline) + 1) + "|"]
    for name, row in rows.items():
        cells = [f"{value:.0f} ({value / baseline[n]:.1f}x)" for n, value in row.items()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(result: dict[str, Any]) -> None:
    rows = medians(result)
    baseline = rows["Hugging Face generate"]
    table = Table("", *(f"{n} at once" for n in baseline), title=f"Output tokens/s, {result['model']}, medians")
    for name, row in rows.items():
        table.add_row(name, *(f"{value:.0f} ({value / baseline[n]:.2f}x)" for n, value in row.items()))
    Console().print(table)
    Console().print(f"ready after {result['seconds_to_ready']} s")


if __name__ == "__main__":
    main()
