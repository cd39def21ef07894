"""What `cpu.py` compares with: other ways to run the same checkpoint on this CPU, each at its best thread count.

Each is an object with `seconds(prompts, output_tokens)`: wall time from prompts to all tokens, end of text ignored.
CTranslate2 and llama.cpp are optional (`make bench-peers`); what isn't installed is named in the result.
"""

import contextlib
import importlib.metadata
import io
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import torch

from benchmarks.cpu_llama_cpp import LlamaCpp
from benchmarks.cpu_tokens import GREEDY, Sampling
from zeroshot.engine.engine import Engine
from zeroshot.engine.loader import load_engine
from zeroshot.settings import DType, EngineSettings, engine_environment
from zeroshot.types import GenerateRequest, SamplingParams

END_OF_TEXT = 50256


class HuggingFace:
    def __init__(self, checkpoint: Path, sampling: Sampling) -> None:
        from transformers import GPT2LMHeadModel  # slow to import, and `EngineAlone`'s processes don't need it

        filters = {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
        self._how: dict[str, Any] = {"do_sample": False} if sampling.is_greedy else {"do_sample": True} | filters
        self.model = GPT2LMHeadModel.from_pretrained(checkpoint, dtype=torch.float32).eval()

    def seconds(self, prompts: list[list[int]], output_tokens: int) -> float:
        ids = torch.tensor(prompts)
        start = time.perf_counter()
        with torch.inference_mode():
            output = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=output_tokens,
                min_new_tokens=output_tokens,
                **self._how,
                pad_token_id=END_OF_TEXT,
            )
        seconds = time.perf_counter() - start
        check_length(output.shape[1] - ids.shape[1], output_tokens)
        return seconds


class EngineAlone:
    """This project's engine without HTTP, in a process of its own as when it serves: what HTTP adds is the difference.

    In this process it would share an allocator and OpenMP threads with the peers, and was a third slower.
    """

    def __init__(self, checkpoint: Path, dtype: DType, threads: int, sampling: Sampling) -> None:
        self._sampling = sampling
        settings = EngineSettings(
            model_folder=checkpoint, dtype=dtype, device="cpu", num_threads=threads, speculative_ngram=0
        )
        self._process = ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), initializer=_load, initargs=(settings,)
        )
        with patch.dict(os.environ, engine_environment()):
            self._process.submit(os.getpid).result()  # which starts the process

    def seconds(self, prompts: list[list[int]], output_tokens: int) -> float:
        return self._process.submit(_engine_seconds, prompts, output_tokens, self._sampling).result()


_engine: Engine | None = None  # of the process that `EngineAlone` starts


def _load(settings: EngineSettings) -> None:
    global _engine
    _engine = load_engine(settings)


def _engine_seconds(prompts: list[list[int]], output_tokens: int, sampling: Sampling) -> float:
    if _engine is None:
        raise RuntimeError("no engine was loaded in this process")
    params = SamplingParams(max_tokens=output_tokens, ignore_eos=True, **asdict(sampling))
    start = time.perf_counter()
    for index, prompt in enumerate(prompts):
        own = msgspec.structs.replace(params, seed=index)
        _engine.add_request(GenerateRequest(request_id=str(index), prompt_token_ids=prompt, sampling_params=own))
    num_tokens = 0
    while _engine.has_work:
        num_tokens += sum(len(output.token_ids) for output in _engine.step())
    seconds = time.perf_counter() - start
    check_length(num_tokens, output_tokens * len(prompts))
    return seconds


class CTranslate2:
    """Its threads only sometimes help it: each batch size is tried with all in one worker, one thread, one worker
    a thread, and then measured with the fastest."""

    def __init__(self, checkpoint: Path, compute_type: str, threads: int, sampling: Sampling) -> None:
        import ctranslate2

        self._how: dict[str, Any] = {"sampling_topk": 1}
        if not sampling.is_greedy:
            names = ("sampling_temperature", "sampling_topk", "sampling_topp")
            self._how = dict(zip(names, astuple(sampling), strict=True))

        folder = checkpoint / "ctranslate2"
        if not folder.exists():
            with contextlib.redirect_stdout(io.StringIO()):
                ctranslate2.converters.TransformersConverter(str(checkpoint)).convert(str(folder))
        layouts = dict.fromkeys(((1, threads), (1, 1), (threads, 1)))
        self._generators = {
            (workers, each): ctranslate2.Generator(
                str(folder), compute_type=compute_type, inter_threads=workers, intra_threads=each
            )
            for workers, each in layouts
        }

        self._tokens: list[str] = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        self._best: dict[tuple[int, int], tuple[int, int]] = {}

    def seconds(self, prompts: list[list[int]], output_tokens: int) -> float:
        case = (len(prompts), output_tokens)
        if case not in self._best:
            times = {layout: self._run(layout, prompts, output_tokens) for layout in self._generators for _ in range(2)}
            self._best[case] = min(times, key=times.__getitem__)
        return self._run(self._best[case], prompts, output_tokens)

    def _run(self, layout: tuple[int, int], prompts: list[list[int]], output_tokens: int) -> float:
        tokens = [[self._tokens[token_id] for token_id in prompt] for prompt in prompts]
        start = time.perf_counter()
        results = self._generators[layout].generate_batch(
            tokens,
            max_length=output_tokens,
            min_length=output_tokens,
            **self._how,
            include_prompt_in_result=False,
            max_batch_size=-(-len(prompts) // layout[0]),
        )
        seconds = time.perf_counter() - start
        check_length(min(len(result.sequences_ids[0]) for result in results), output_tokens)
        return seconds


def _ctranslate2_has(compute_type: str) -> bool:
    """Whether it multiplies in this type on this processor: it refuses what it would have to emulate."""
    import ctranslate2

    return compute_type in ctranslate2.get_supported_compute_types("cpu")


def check_length(num_tokens: int, wanted: int) -> None:
    if num_tokens != wanted:
        raise RuntimeError(f"asked for {wanted} tokens, got {num_tokens}")


Peer = HuggingFace | EngineAlone | CTranslate2 | LlamaCpp


def peers(
    checkpoint: Path, threads: int, sampling: Sampling = GREEDY
) -> tuple[dict[str, Callable[[], Peer]], dict[str, str]]:
    """(name -> how to load it), and the versions of the libraries, or that one is missing."""
    found: dict[str, Callable[[], Peer]] = {
        "zeroshot fp32, engine alone": lambda: EngineAlone(checkpoint, "fp32", threads, sampling),
        "zeroshot bf16, engine alone": lambda: EngineAlone(checkpoint, "bf16", threads, sampling),
        "zeroshot int8, engine alone": lambda: EngineAlone(checkpoint, "int8", threads, sampling),
        "Hugging Face generate": lambda: HuggingFace(checkpoint, sampling),
    }
    optional: dict[str, dict[str, Callable[[], Peer]]] = {
        "ctranslate2": {
            "CTranslate2 fp32": lambda: CTranslate2(checkpoint, "float32", threads, sampling),
            "CTranslate2 bf16": lambda: CTranslate2(checkpoint, "bfloat16", threads, sampling),
            "CTranslate2 int8": lambda: CTranslate2(checkpoint, "int8", threads, sampling),
        },
        "llama-cpp-python": {
            "llama.cpp F32": lambda: LlamaCpp(checkpoint, "F32", threads, sampling),
            "llama.cpp BF16": lambda: LlamaCpp(checkpoint, "BF16", threads, sampling),
            "llama.cpp Q8_0": lambda: LlamaCpp(checkpoint, "Q8_0", threads, sampling),
        },
    }
    versions = {"transformers": importlib.metadata.version("transformers")}
    for package, systems in optional.items():
        try:
            versions[package] = importlib.metadata.version(package)
            found |= systems
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed: make bench-peers"
    if "CTranslate2 bf16" in found and not _ctranslate2_has("bfloat16"):
        del found["CTranslate2 bf16"]
    return found, versions
