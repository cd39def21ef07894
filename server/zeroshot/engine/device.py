"""What a runner needs of a device beside tensors: asynchronous copies and recorded work. CUDA, or the host instead.

Everything runs on one stream, in the order it was given. That order is the whole argument for safety: a step that was
launched for a sequence which has ended writes to blocks that whoever gets them next will write after it.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

Download = Callable[[], list[np.ndarray[Any, Any]]]
"""Waits until the copies are there, and returns them."""


class Device(Protocol):
    torch_device: torch.device
    compiles: bool
    """Does a kernel's first launch wait for a compiler? Then the runner launches everything once when it starts."""

    def upload(self, array: np.ndarray[Any, Any]) -> Tensor:
        """A copy on the device, for work given after this. The array may be changed at once."""

    def download(self, tensors: list[Tensor]) -> Download:
        """Copies of the tensors as they are after the work given so far, whatever is given later."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Something that does again what the function does: same tensors, same shapes, no allocation, no Python."""


class HostDevice:
    """The CPU, where kernels run in Triton's interpreter: all is done as soon as it is given."""

    torch_device = torch.device("cpu")
    compiles = False

    def upload(self, array: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(array.copy())

    def download(self, tensors: list[Tensor]) -> Download:
        copies = [tensor.numpy().copy() for tensor in tensors]
        return lambda: copies

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        return function


class CudaDevice:
    """A CUDA device's current stream.

    Pinned memory comes from PyTorch's caching host allocator. It notes the stream's position at each copy that does not
    block, and hands a block out again only when the stream is past it: so staging buffers can be dropped as soon as
    their copy is launched, and there is no ring of buffers to overrun.
    """

    compiles = True

    def __init__(self, torch_device: torch.device, *, can_record: bool) -> None:
        self.torch_device = torch_device
        self._can_record = can_record
        self._capture_stream = torch.cuda.Stream(torch_device)  # type: ignore[no-untyped-call]
        # Graphs share the memory of their intermediate results. They never run at the same time, and what they leave
        # for others is in tensors that were allocated outside of all of them.
        self._pool = torch.cuda.graph_pool_handle()

    def upload(self, array: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(array).pin_memory().to(self.torch_device, non_blocking=True)

    def download(self, tensors: list[Tensor]) -> Download:
        copies = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
        for copy, tensor in zip(copies, tensors, strict=True):
            copy.copy_(tensor, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()

        def wait() -> list[np.ndarray[Any, Any]]:
            done.synchronize()
            return [copy.numpy() for copy in copies]

        return wait

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """A CUDA graph. References in place of kernels look at values on the host, which no graph can: those run as is.

        The first run is no part of the graph: Triton compiles and loads its kernels, cuBLAS picks its own and gets its
        workspace, on the stream that will capture. None of that is allowed while capturing.
        """
        if not self._can_record:
            return function
        current = torch.cuda.current_stream(self.torch_device)
        self._capture_stream.wait_stream(current)
        with torch.cuda.stream(self._capture_stream):
            function()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._capture_stream):
                function()
        except BaseException:
            torch.cuda.set_stream(current)  # a capture that can't be ended leaves the other one in place
            raise
        current.wait_stream(self._capture_stream)
        return graph.replay
