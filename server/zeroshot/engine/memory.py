"""How much the KV cache may take: a share of the memory that is left on its device, or in its container."""

import math
from pathlib import Path

import torch

from zeroshot.engine import cgroup
from zeroshot.model.gpt2 import GPT2
from zeroshot.settings import EngineSettings

_MOST_BYTES = {"cpu": 2 * 2**30, "cuda": 16 * 2**30}
"""However much there is. A full GPT-2 124M context in fp32 is 75 MB."""

_SHARE = {"cpu": 0.5, "cuda": 0.8}
"""The rest is for a step's tensors, for CUDA graphs, and on a CPU for whatever other processes need."""


def num_kv_blocks(model: GPT2, settings: EngineSettings, block_size: int) -> int:
    """Room for max_num_seqs full contexts as far as memory goes, and for one full context at the very least."""
    blocks_per_context = -(-model.config.n_positions // block_size)
    if settings.kv_cache_tokens is not None:
        return max(blocks_per_context, settings.kv_cache_tokens // block_size)
    bytes_per_block = 2 * model.config.n_layer * model.config.n_embd * model.kv_dtype.itemsize * block_size
    affordable = kv_cache_bytes(model.device) // bytes_per_block
    return max(blocks_per_context, min(settings.max_num_seqs * blocks_per_context, affordable))


def kv_cache_bytes(device: torch.device) -> int:
    """A share of the memory that is left, up to a fixed maximum. To be called once the weights are loaded."""
    left = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else host_bytes_left()
    return int(min(_MOST_BYTES[device.type], _SHARE[device.type] * left))


def host_bytes_left(root: Path = Path("/")) -> float:
    """What this process can still take before the system swaps or its container is killed; inf if unknown.

    root: where `proc` and `sys` are.
    """
    available = cgroup.number(root / "proc/meminfo", "MemAvailable:")
    machine = math.inf if available is None else available * 1024  # not Linux, or a sandbox that hides it
    return min(machine, cgroup.bytes_left(root))
