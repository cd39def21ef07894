"""(d) The engine without HTTP: decode at several batch sizes, prefill of long prompts, for each of GPT-2's shapes."""

import statistics
import time
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.roofline import decode_floor_s, kv_bytes, prefill_flop, weight_bytes
from benchmarks.gpu.run import Run
from zeroshot.engine.engine import Engine
from zeroshot.model.config import GPT2Config
from zeroshot.model.fused_decode import fused_rows
from zeroshot.model.gpt2 import GPT2
from zeroshot.model.ops import device_backend
from zeroshot.model.triton_fused import triton_fused_ops
from zeroshot.model.triton_ops import triton_ops
from zeroshot.model.weights import GPT2Weights, LayerWeights
from zeroshot.settings import EngineSettings, FusedDecode
from zeroshot.types import GenerateRequest, SamplingParams

_WARM_UP_TOKENS = 8
_PREFILLS = 5


def measure(run: Run) -> None:
    """Into results["engine"]: {shape: {"decode": {batch: …}, "prefill": …}}."""
    for index, (shape, config) in enumerate(run.sizes.shapes.items()):
        into = run.results.setdefault("engine", {}).setdefault(shape, {"decode": {}})
        batches = run.sizes.first_batches if index == 0 else run.sizes.other_batches
        run.attempt(into, "start", partial(_measure_shape, run, into, config, batches))


def _measure_shape(run: Run, into: dict[str, Any], config: GPT2Config, batches: tuple[int, ...]) -> dict[str, Any]:
    """Fills `into`. Returns how long the engine took to start, and which kernels it runs on."""
    fitting = [batch for batch in batches if fits(run, config, batch)]
    for batch in set(batches) - set(fitting):
        into["decode"][str(batch)] = {"skipped": "its KV cache does not fit into this card's memory"}
    started = time.perf_counter()
    engine = make_engine(run, config, max(fitting, default=1))
    result = {"seconds": time.perf_counter() - started, "kernels": engine.stats().kernels}
    for batch in fitting:
        run.attempt(into["decode"], str(batch), partial(decode_case, run, engine, batch))
    run.attempt(into, "prefill", partial(_prefill, run, engine))
    return result


def fits(run: Run, config: GPT2Config, batch: int, kv_dtype: torch.dtype | None = None) -> bool:
    if run.device.type != "cuda":
        return True
    free_bytes, _ = torch.cuda.mem_get_info()
    kv = batch * kv_bytes(config, _tokens_each(run), (kv_dtype or run.sizes.dtype).itemsize)
    return kv + 3 * weight_bytes(config, run.sizes.dtype.itemsize) + 4 * 2**30 < free_bytes


def _tokens_each(run: Run) -> int:
    """Of a sequence's KV cache: whole blocks."""
    return -(-(run.sizes.prompt_tokens + run.sizes.output_tokens + _WARM_UP_TOKENS) // 64) * 64


def make_engine(
    run: Run,
    config: GPT2Config,
    max_num_seqs: int,
    *,
    fused_decode: FusedDecode = "auto",
    kv_dtype: torch.dtype | None = None,
    tokens_each: int = 0,
) -> Engine:
    """With room for `tokens_each` tokens a sequence, or as many as the decode cases need."""
    sizes = run.sizes
    types: dict[str, Any] = {"dtype": sizes.dtype, "device": run.device, "kv_dtype": kv_dtype}
    ops, kernels = triton_ops(config, max_num_seqs=max_num_seqs, **types)
    fused = triton_fused_ops(config, wanted=fused_decode, kernels=kernels, **types)
    max_fused_rows = fused_rows(config.n_embd, batch_invariant=fused_decode == "on")
    backend = device_backend(ops, kernels, *fused, kv_dtype=kv_dtype, max_fused_rows=max_fused_rows)
    model = GPT2(config, random_weights(config, run.device, sizes.dtype), backend)
    settings = EngineSettings(
        model_folder=Path(),
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max(8192, max_num_seqs) if not run.is_dry else 64,
        kv_cache_tokens=max(max_num_seqs * (tokens_each or _tokens_each(run)), sizes.num_prefills * config.n_positions),
    )
    return Engine(model, settings)


def random_weights(config: GPT2Config, device: torch.device, dtype: torch.dtype) -> GPT2Weights:
    """The same work as real ones. Made on the device: nothing is read or downloaded."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=dtype) * 0.02

    d, inner = config.n_embd, config.n_inner
    ones, zeros = torch.ones(d, device=device, dtype=dtype), torch.zeros(d, device=device, dtype=dtype)

    def layer() -> LayerWeights:
        attention = (normal(d, 3 * d), normal(3 * d), normal(d, d), normal(d))
        mlp = (normal(d, inner), normal(inner), normal(inner, d), normal(d))
        return LayerWeights(ones, zeros, *attention, ones, zeros, *mlp)

    wte = normal(config.vocab_size, d)
    layers = tuple(layer() for _ in range(config.n_layer))
    return GPT2Weights(wte, normal(config.n_positions, d), layers, ones, zeros, wte)


def _requests(engine: Engine, count: int, num_prompt: int, num_output: int, name: str) -> None:
    """Prompts that share nothing, so that nothing is cached; greedy, and end of text doesn't end them."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    vocab_size = engine.model.config.vocab_size
    for index in range(count):
        prompt = torch.randint(0, vocab_size - 1, (num_prompt,), generator=generator).tolist()
        params = SamplingParams(max_tokens=num_output, temperature=0.0, ignore_eos=True)
        engine.add_request(
            GenerateRequest(request_id=f"{name}{index}", prompt_token_ids=prompt, sampling_params=params)
        )


def _step(engine: Engine) -> int:
    """One step. How many tokens came of it. Raises if a request failed."""
    outputs = engine.step()
    failed = next((output for output in outputs if output.finish_reason == "error"), None)
    if failed is not None:
        raise RuntimeError(f"a request ended with {failed.error_code}: {failed.error_message}")
    return sum(len(output.token_ids) for output in outputs)


def _all_decode(engine: Engine, batch: int) -> bool:
    running = engine.scheduler.running
    return len(running) == batch and all(sequence.is_decoding for sequence in running)


def decode_case(run: Run, engine: Engine, batch: int) -> dict[str, float]:
    """While all of the batch decodes: from when the last one has begun until the first one ends."""
    sizes, config = run.sizes, engine.model.config
    _requests(engine, batch, sizes.prompt_tokens, sizes.output_tokens + _WARM_UP_TOKENS, f"decode{batch}-")
    while not _all_decode(engine, batch):
        if not engine.has_work:
            raise RuntimeError(f"there was no moment when all {batch} decoded")
        _step(engine)
    run.synchronize()
    counted, seconds, start = 0, 0.0, time.perf_counter()
    _step(engine)  # its tokens were drawn before the clock started; what it launches counts
    while num_drawn := _step(engine):
        if len(engine.scheduler.running) < batch:
            break
        counted, seconds = counted + num_drawn, time.perf_counter() - start
    while engine.has_work:
        _step(engine)
    if counted == 0:
        raise RuntimeError("there was nothing left to measure")
    floor = decode_floor_s(
        config,
        batch,
        sizes.context,
        sizes.dtype.itemsize,
        run.results["card"]["read_bytes_per_s"],
        kv_bytes_per_value=engine.model.kv_dtype.itemsize,
    )
    tokens_per_s = counted / seconds
    return {
        "tokens_per_s": tokens_per_s,
        "step_us": 1e6 * batch / tokens_per_s,
        "context": sizes.context,
        "roofline_tokens_per_s": batch / floor,
        "of_roofline": tokens_per_s * floor / batch,
    }


def all_at_once(run: Run, engine: Engine, count: int, num_prompt: int, num_output: int, name: str) -> float:
    """Generated tokens a second, from the first request to the last token, prompts included."""
    _requests(engine, count, num_prompt, num_output, name)
    start = time.perf_counter()
    while engine.has_work:
        _step(engine)
    run.synchronize()
    return count * num_output / (time.perf_counter() - start)


def _prefill(run: Run, engine: Engine) -> dict[str, float]:
    """Prompts of nearly the whole context, a token each; the median of several times, when everything is warm."""
    config, count = engine.model.config, run.sizes.num_prefills
    length = config.n_positions - 1
    times = []
    for repeat in range(1 + _PREFILLS):
        _requests(engine, count, length, 1, f"prefill{repeat}-")
        start = time.perf_counter()
        while engine.has_work:
            _step(engine)
        run.synchronize()
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:])
    floor = count * prefill_flop(config, length) / run.results["card"]["matrix_flop_per_s"]
    return {"tokens_per_s": count * length / seconds, "of_matrix_rate": floor / seconds}
