"""Memory for weights and the KV cache in pages of 2 MB, where the system has them.

A token reads all weights: with pages of 4 KB the processor looks up 120,000 of them for GPT-2 124M's 498 MB, and on a
virtual machine each look-up is two. Reading them took a third less time in large pages.
"""

import contextlib
import math
import mmap

import torch
from torch import Tensor


class HugePages:
    """Room for tensors that stay. What is not written to takes no memory."""

    _PIECE = 256 * 2**20  # of address space
    _ALIGNMENT = 64

    def __init__(self) -> None:
        self._piece: Tensor | None = None
        self._used = 0

    def zeros(self, *shape: int, dtype: torch.dtype) -> Tensor:
        num_bytes = math.prod(shape) * dtype.itemsize
        if self._piece is None or self._used + num_bytes > len(self._piece):
            self._piece, self._used = _reserve(max(num_bytes, self._PIECE)), 0
        start = self._used
        self._used += -(-num_bytes // self._ALIGNMENT) * self._ALIGNMENT
        return self._piece[start : start + num_bytes].view(dtype).view(shape)


def _reserve(num_bytes: int) -> Tensor:
    """uint8 [num_bytes] that the tensor keeps alive."""
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared memory has other rules
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them: small pages are as right
            memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)
