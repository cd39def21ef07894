"""What tests of kernels start from: the kernel if it can run here, and tensors between guard bands.

With guards a kernel that reads or writes outside its buffers is caught in Triton's interpreter too.
"""

import functools
import importlib
from types import ModuleType

import pytest
import torch
from torch import Tensor

_GUARD_ELEMENTS = 64
_INTEGER_GUARD = -7_777_777


def kernel_of(op: str) -> ModuleType:
    """zeroshot_kernels.<op>.kernel, or a skipped test with the reason."""
    reason = _why_not()
    if reason:
        pytest.skip(reason, allow_module_level=True)
    return importlib.import_module(f"zeroshot_kernels.{op}.kernel")


@functools.cache
def _why_not() -> str:
    try:
        import triton
        from triton.runtime.errors import InterpreterError
    except ImportError:
        return "triton is not installed: pip install 'zeroshot[triton]'"
    try:
        # Triton 3.6's interpreter makes loop bounds of arrays in a way that NumPy 2.4 no longer allows.
        triton.jit(_sum_below)[(1,)](torch.zeros(1), 3)
    except InterpreterError as error:
        return f"the interpreter of triton {triton.__version__} does not work here: {error}"
    return ""


def _sum_below(out_ptr, end):  # type: ignore[no-untyped-def]
    from triton import language as tl

    for i in tl.range(tl.load(out_ptr).to(tl.int32), end):
        tl.store(out_ptr, i)


class GuardedBuffers:
    """Each tensor lies within a larger one; floating-point guards are NaN, which any calculation hands on."""

    def __init__(self) -> None:
        self._guarded: list[tuple[Tensor, Tensor, int]] = []

    def copy(self, content: Tensor) -> Tensor:
        """The same values, contiguous, between guards."""
        tensor = self.poisoned(*content.shape, dtype=content.dtype)
        tensor.copy_(content)
        return tensor

    def poisoned(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """An output nobody has written yet: NaN, or an absurd integer."""
        size = int(torch.Size(shape).numel())
        whole = torch.empty(size + 2 * _GUARD_ELEMENTS, dtype=dtype)
        whole.fill_(torch.nan if dtype.is_floating_point else _INTEGER_GUARD if dtype.is_signed else 1)
        self._guarded.append((whole, whole.clone(), size))
        return whole[_GUARD_ELEMENTS : _GUARD_ELEMENTS + size].view(shape)

    def check(self) -> None:
        for whole, before, size in self._guarded:
            for band in (slice(None, _GUARD_ELEMENTS), slice(_GUARD_ELEMENTS + size, None)):
                assert torch.equal(whole[band].view(torch.uint8), before[band].view(torch.uint8)), "a guard was written"


def relative_error(output: Tensor, expected: Tensor) -> float:
    """norm(output - expected) / norm(expected)"""
    return float((output.double() - expected.double()).norm() / expected.double().norm())


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
