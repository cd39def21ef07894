"""(e) The same decoding by others: Hugging Face `generate`, eager and compiled, and a plain PyTorch CUDA graph."""

import time
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.engine import random_weights
from benchmarks.gpu.plain_model import PlainModel
from benchmarks.gpu.run import Run
from zeroshot.model.config import GPT2Config


def measure(run: Run) -> None:
    """Into results["peers"]: {shape: {peer: {batch: {"tokens_per_s"}}}}. What has to be compiled comes last."""
    peers = run.results.setdefault("peers", {})
    for index, (shape, config) in enumerate(run.sizes.shapes.items()):
        batches = run.sizes.first_batches if index == 0 else run.sizes.other_batches
        plain = peers.setdefault(shape, {}).setdefault("PyTorch, CUDA graph", {})
        for batch in batches:
            run.attempt(plain, str(batch), partial(_plain, run, config, batch))
        eager = peers[shape].setdefault("Hugging Face, eager", {})
        for batch in batches:
            run.attempt(eager, str(batch), partial(_hugging_face, run, config, batch, False))
    shape, config = next(iter(run.sizes.shapes.items()))
    compiled = peers[shape].setdefault("Hugging Face, static cache, compiled", {})
    for batch in run.sizes.first_batches[:1]:
        run.attempt(compiled, str(batch), partial(_hugging_face, run, config, batch, True))


@torch.inference_mode()
def _plain(run: Run, config: GPT2Config, batch: int) -> dict[str, Any]:
    sizes = run.sizes
    context = -(-(sizes.prompt_tokens + sizes.output_tokens) // 8) * 8
    model = PlainModel(config, random_weights(config, run.device, sizes.dtype), batch, context)
    step = model.recorded_step()
    step()  # a graph is uploaded when it first runs
    model.prepare(sizes.prompt_tokens)
    run.synchronize()
    start = time.perf_counter()
    for _ in range(sizes.output_tokens):
        step()
    model.drawn().tolist()  # the tokens are wanted on the host
    return {"tokens_per_s": batch * sizes.output_tokens / (time.perf_counter() - start)}


@torch.inference_mode()
def _hugging_face(run: Run, config: GPT2Config, batch: int, is_compiled: bool) -> dict[str, Any]:
    """The second half of the tokens, so that neither prefill nor set-up counts."""
    from transformers import GPT2Config as TheirConfig
    from transformers import GPT2LMHeadModel

    torch.manual_seed(0)
    with torch.device(run.device):
        model = GPT2LMHeadModel(TheirConfig(**_fields(config))).to(run.sizes.dtype).eval()
    prompts = torch.randint(0, config.vocab_size - 1, (batch, run.sizes.prompt_tokens), device=run.device)
    options: dict[str, Any] = {"do_sample": False, "pad_token_id": config.eos_token_id}
    if is_compiled:  # on a GPU, `generate` itself compiles what has a static cache
        options["cache_implementation"] = "static"

    # Eager, a token takes about the same time whatever it is: fewer of them say as much.
    num_tokens = run.sizes.output_tokens if is_compiled else run.sizes.output_tokens // 4
    for _ in ("warm", "timed"):
        clock = _Clock(run, num_tokens // 2)
        length = {"max_new_tokens": num_tokens, "min_new_tokens": num_tokens}
        output = model.generate(
            prompts, attention_mask=torch.ones_like(prompts), logits_processor=[clock], **length, **options
        )
        run.synchronize()
        seconds = time.perf_counter() - clock.started
    if output.shape[1] != prompts.shape[1] + num_tokens:
        raise RuntimeError(f"asked for {num_tokens} tokens, got {tuple(output.shape)}")
    if is_compiled and run.device.type == "cuda" and not hasattr(model, "_compiled_call"):
        raise RuntimeError("this version of transformers does not compile a model with a static cache")
    return {"tokens_per_s": batch * (num_tokens - num_tokens // 2 - 1) / seconds}


class _Clock:
    """A logits processor, which sees the logits of each token: starts when `num_skipped` tokens have been drawn."""

    def __init__(self, run: Run, num_skipped: int) -> None:
        self._run, self._num_left = run, num_skipped
        self.started = 0.0

    def __call__(self, _input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._num_left == 0:
            self._run.synchronize()
            self.started = time.perf_counter()
        self._num_left -= 1
        return scores


def _fields(config: GPT2Config) -> dict[str, Any]:
    names = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner", "bos_token_id", "eos_token_id")
    return {name: getattr(config, name) for name in names} | {"bos_token_id": config.eos_token_id}
