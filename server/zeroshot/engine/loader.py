"""Settings -> an engine with its model loaded. The one place that decides device, dtype and threads."""

import ctypes
import logging
import math
from dataclasses import replace
from typing import Any

import torch

from zeroshot.engine import cgroup
from zeroshot.engine.engine import Engine
from zeroshot.engine.speculative import max_decode_rows
from zeroshot.errors import SettingsError
from zeroshot.model.config import GPT2Config
from zeroshot.model.fused_decode import fused_rows
from zeroshot.model.gpt2 import GPT2
from zeroshot.model.hub import fetch_model
from zeroshot.model.native_linear import FORMATS
from zeroshot.model.native_ops import are_available, native_backend
from zeroshot.model.ops import Backend, device_backend, plain_backend
from zeroshot.model.triton_fused import triton_fused_ops
from zeroshot.model.triton_ops import triton_ops
from zeroshot.model.weights import load_weights
from zeroshot.settings import EngineSettings

logger = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 2**30
_BF16_CAPABILITY = (8, 0)
_FP8_CAPABILITY = (8, 9)

# int8 is for the linear layers; everything around them stays fp32. So does it with bf16 by the C++ kernels.
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}


def load_engine(settings: EngineSettings) -> Engine:
    """Raises WeightsError for a checkpoint that can't be served, UnknownModel for a draft that isn't there, and
    SettingsError for a setting that the device lacks.
    """
    num_threads = settings.num_threads or _cores()
    if num_threads != torch.get_num_threads():
        torch.set_num_threads(num_threads)
    model = load_model(settings)
    engine = Engine(model, settings, _load_draft(settings))
    _keep_freed_memory()  # from here on: what loading freed has been given back
    logger.info(
        "%s on %s in %s by %s, %d threads, KV cache of %d tokens",
        settings.model_folder.name,
        model.device,
        str(model.dtype).removeprefix("torch.") if settings.dtype == "auto" else settings.dtype,
        model.backend.name,
        torch.get_num_threads(),
        engine.block_manager.num_blocks * engine.block_manager.block_size,
    )
    return engine


def _cores() -> int:
    """As many as this process may use. With more threads than its container has CPUs it would be stopped a part of the
    time, threads that others wait for among them.
    """
    return math.ceil(min(torch.get_num_threads(), cgroup.cpus()))


def _load_draft(settings: EngineSettings) -> GPT2 | None:
    """The model that guesses, in the dtype of the one that decides. Raises UnknownModel or WeightsError."""
    if settings.speculative_model is None:
        return None
    folder = fetch_model(settings.speculative_model, settings.weights_dir)
    logger.info("%s guesses up to %d tokens of a single stream", folder.name, settings.speculative_tokens)
    return load_model(settings.model_copy(update={"model_folder": folder}))


def _keep_freed_memory() -> None:
    """A step's large tensors are allocated anew each time: let glibc keep their memory instead of giving it back.

    Otherwise every page of it is a page fault in the next step: decode attention over 32 sequences took three times
    as long. Elsewhere (musl, macOS) there is no mallopt, and nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def load_model(settings: EngineSettings) -> GPT2:
    """The model on its device, with the best kernels that work there. Raises WeightsError or SettingsError."""
    device = torch.device(_device_type(settings))
    config = GPT2Config.from_folder(settings.model_folder)
    kv_dtype = _kv_dtype(settings, device)
    if device.type == "cpu":
        backend, dtype = _cpu_backend(settings)
        weights = load_weights(settings.model_folder, config, dtype=dtype, device=device)
        return GPT2(config, weights, backend if kv_dtype is None else replace(backend, kv_dtype=kv_dtype))
    if settings.dtype == "int8":
        raise SettingsError("dtype int8 is for CPUs; a GPU runs bf16, fp16 or fp32.")
    dtype = _gpu_dtype(settings, device)
    weights = load_weights(settings.model_folder, config, dtype=dtype, device=device)
    types: dict[str, Any] = {"dtype": dtype, "device": device, "kv_dtype": kv_dtype}
    ops, kernels = triton_ops(config, max_num_seqs=max_decode_rows(settings), **types)
    fused = triton_fused_ops(config, wanted=settings.fused_decode, kernels=kernels, **types)
    backend = device_backend(ops, kernels, *fused, kv_dtype=kv_dtype, max_fused_rows=max_fused_rows(settings, config))
    return GPT2(config, weights, backend)


def max_fused_rows(settings: EngineSettings, config: GPT2Config) -> int:
    guesses = bool(settings.speculative_ngram or settings.speculative_model)
    return fused_rows(config.n_embd, batch_invariant=guesses or settings.fused_decode == "on")


def _device_type(settings: EngineSettings) -> str:
    """Raises SettingsError for a GPU that isn't there."""
    if settings.device == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if settings.device == "cuda":
        reason = "PyTorch finds no GPU here" if torch.version.cuda else "this PyTorch is a build without CUDA"
        raise SettingsError(f"device cuda: {reason}. Use cpu, or auto, which takes a GPU if there is one.")
    return "cpu"


def _kv_dtype(settings: EngineSettings, device: torch.device) -> torch.dtype | None:
    """None: the backend's choice. Raises SettingsError for one that the device doesn't have."""
    if settings.kv_dtype == "auto":
        return None
    if device.type == "cpu":
        if settings.kv_dtype == "fp8":
            raise SettingsError("kv_dtype fp8 is for GPUs; a CPU keeps keys and values in fp32 or fp16.")
        return _DTYPES[settings.kv_dtype]
    if settings.kv_dtype != "fp8":
        raise SettingsError(f"kv_dtype {settings.kv_dtype} is for CPUs; a GPU has auto (the model's dtype) and fp8.")
    capability = torch.cuda.get_device_capability(device)
    if capability < _FP8_CAPABILITY:
        needed, found = (".".join(map(str, version)) for version in (_FP8_CAPABILITY, capability))
        raise SettingsError(f"kv_dtype fp8 needs compute capability {needed}; this GPU has {found}.")
    return torch.float8_e4m3fn


def _cpu_backend(settings: EngineSettings) -> tuple[Backend, torch.dtype]:
    """And what to load weights in. auto is fp32: exact, and the demo model is small."""
    dtype = "fp32" if settings.dtype == "auto" else settings.dtype
    if settings.cpu_kernels == "auto" and dtype in FORMATS and are_available():
        return native_backend(dtype), torch.float32
    return plain_backend(is_int8=dtype == "int8"), _DTYPES[dtype]


def _gpu_dtype(settings: EngineSettings, device: torch.device) -> torch.dtype:
    """auto is bf16, or fp16 on a GPU that has none (before Ampere)."""
    if settings.dtype != "auto":
        return _DTYPES[settings.dtype]
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= _BF16_CAPABILITY else torch.float16
