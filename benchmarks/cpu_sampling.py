"""What choosing a token costs on a CPU: the C++ kernels that sample beside the PyTorch code that they replace.

    python -m benchmarks.cpu_sampling                                # GPT-2 124M's shape: 8 minutes
    python -m benchmarks.cpu_sampling --model model_weights/demo     # the bundled model
    python -m benchmarks.cpu_sampling --size tiny --rounds 1 --streams 1 4

Whole steps of the engine, without HTTP, the two by turns; medians of the rounds. Random values give flat distributions,
the dearest to filter: at temperature 1, top-p 0.9 keeps most of the vocabulary.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from benchmarks import command
from benchmarks.random_checkpoint import SIZES, random_checkpoint
from zeroshot.engine.engine import Engine
from zeroshot.engine.loader import load_model
from zeroshot.model.gpt2 import GPT2
from zeroshot.model.native_ops import why_unavailable
from zeroshot.settings import EngineSettings, engine_environment
from zeroshot.text.tokenizer import Tokenizer
from zeroshot.types import BeamParams, GenerateRequest, Grammar, SamplingParams

CASES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "temperature": {},
    "top_k 40": {"top_k": 40},
    "top_p 0.9": {"top_p": 0.9},
    "min_p 0.05": {"min_p": 0.05},
    "top_k 50, top_p 0.95": {"top_k": 50, "top_p": 0.95},
    "repetition_penalty 1.2": {"repetition_penalty": 1.2},
    "greedy, repetition_penalty 1.2": {"temperature": 0.0, "repetition_penalty": 1.2},
    "a regular expression": {"grammar": Grammar(kind="regex", source="( [a-z]+){200,}")},
    "greedy, logprobs 5": {"temperature": 0.0, "logprobs": 5},
    "four beams": {"temperature": 0.0, "beams": BeamParams(num_beams=4)},
}
PROMPT = "The history of the city begins with a small harbour, and"
TEXT_TOKENS = 256
SCORED: dict[str, dict[str, Any]] = {
    f"{TEXT_TOKENS} tokens scored": {"prompt_logprobs": 0, "max_tokens": 1},
    f"{TEXT_TOKENS} tokens scored, with the best 5": {"prompt_logprobs": 5, "max_tokens": 1},
}


def measure(model: GPT2, engine: Engine, jobs: dict[str, list[GenerateRequest]], rounds: int) -> dict[str, Any]:
    """{job: {"C++ kernels" or "PyTorch": tokens/s, one number a round}}; a first round is not counted."""
    systems = {"C++ kernels": True, "PyTorch": False}
    rates: dict[str, dict[str, list[float]]] = {job: {name: [] for name in systems} for job in jobs}
    for job, number in track([(job, n) for job in jobs for n in range(rounds + 1)], transient=True):
        for name, has_kernels in systems.items():
            with sampling_by(model, has_kernels=has_kernels):
                rate = tokens_per_second(engine, jobs[job])
            if number > 0:
                rates[job][name].append(round(rate, 1))
    return rates


@contextmanager
def sampling_by(model: GPT2, *, has_kernels: bool) -> Iterator[None]:
    backend = model.backend
    model.backend = backend if has_kernels else replace(backend, sampling_kernels=None)
    try:
        yield
    finally:
        model.backend = backend


def tokens_per_second(engine: Engine, requests: list[GenerateRequest]) -> float:
    """Generated ones, or scored ones."""
    num_tokens, started = 0, time.perf_counter()
    for request in requests:
        engine.add_request(request)
    while engine.has_work:
        for output in engine.step():
            num_tokens += len(output.prompt_logprobs or output.token_ids)
    return num_tokens / (time.perf_counter() - started)


def generations(prompt: list[int], num_streams: int, max_tokens: int, **params: Any) -> list[GenerateRequest]:
    return [
        GenerateRequest(
            request_id=str(i),
            prompt_token_ids=prompt,
            sampling_params=SamplingParams(seed=i, max_tokens=max_tokens, ignore_eos=True, **params),
        )
        for i in range(num_streams)
    ]


def markdown_table(result: dict[str, Any]) -> str:
    """The table of docs/cpu.md: medians, tokens/s, and how many times as fast as PyTorch's sampling."""
    streams = list(result["tokens_per_second"])
    lines = ["| | " + " | ".join(f"{n} at once" for n in streams) + " |", "|---" * (len(streams) + 1) + "|"]
    lines += [
        f"| {case} | " + " | ".join(_cell(result["tokens_per_second"][n][case]) for n in streams) + " |"
        for case in result["tokens_per_second"][streams[0]]
    ]
    lines += [f"| {job} | {_cell(rates)} |" + " |" * (len(streams) - 1) for job, rates in result["scored"].items()]
    return "\n".join(lines)


def _cell(rates: dict[str, list[float]]) -> str:
    kernels, plain = (statistics.median(rates[name]) for name in ("C++ kernels", "PyTorch"))
    return f"{kernels:.0f} ({kernels / plain:.1f}x)"


def main() -> None:
    environment = engine_environment()
    if environment != dict(os.environ):  # PyTorch's threads wait as a server's do: they read this at their start
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.cpu_sampling", *sys.argv[1:]], environment)
    parser = command.parser("cpu_sampling", __doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32], help="at once")
    parser.add_argument("--rounds", type=int, default=3, help="of both, by turns")
    parser.add_argument("--max-tokens", type=int, default=32, help="of each stream")
    parser.add_argument("--dtype", choices=["fp32", "int8"], default="int8", help="of the linear layers")
    parser.add_argument("--size", choices=SIZES, default="124m", help="a shape, whose values are random")
    parser.add_argument("--model", type=Path, help="a checkpoint's folder instead")
    parser.add_argument("--checkpoints", type=Path, default=Path(tempfile.gettempdir()), help="where to keep them")
    arguments = parser.parse_args()
    reason = why_unavailable()
    if reason is not None:
        sys.exit(f"The C++ kernels are not available here: {reason}")
    folder = arguments.model or random_checkpoint(arguments.size, arguments.checkpoints)
    # Without guesses: how many of them are right has nothing to do with what a step costs.
    settings = EngineSettings(model_folder=folder, device="cpu", dtype=arguments.dtype, speculative_ngram=0)
    model = load_model(settings)
    engine = Engine(model, settings)
    prompt = Tokenizer.from_folder(folder).encode(PROMPT)
    text = (prompt * TEXT_TOKENS)[: TEXT_TOKENS + 1]
    result = {
        "model": folder.name,
        "dtype": arguments.dtype,
        "threads": torch.get_num_threads(),
        "max_tokens": arguments.max_tokens,
        "tokens_per_second": {
            str(n): measure(
                model,
                engine,
                {case: generations(prompt, n, arguments.max_tokens, **params) for case, params in CASES.items()},
                arguments.rounds,
            )
            for n in arguments.streams
        },
        "scored": measure(
            model, engine, {job: generations(text, 1, **params) for job, params in SCORED.items()}, arguments.rounds
        ),
    }
    command.write("cpu_sampling", result, arguments.output)
    print(markdown_table(result))


if __name__ == "__main__":
    main()
