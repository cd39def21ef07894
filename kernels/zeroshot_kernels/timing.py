"""How the ops' benchmarks measure: CUDA graphs, events, and the bandwidth of this very card in this very run."""

import statistics
import sys
from collections.abc import Callable

import torch

_OTHER_BYTES = 512 * 2**20  # ten times the L2 cache of an H200: a measured kernel finds nothing of its data in it
_TIMED_RUNS = 50
_WARM_CALLS = 10
_READ_BYTES = 4 * 2**30


def require_cuda() -> torch.device:
    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a CUDA device and there is none. Tests of the kernels run without: make test")
    return torch.device("cuda")


def seconds(function: Callable[[], object], *, is_cold: bool = True) -> float:
    """Median time of a call on the device, without the host's: captured in a graph.

    Cold: one call, with nothing of its data in the L2 cache. What fills the cache instead was only read, so that
    nothing is written back meanwhile, and reading it takes longer than the host takes to launch the graph. Not cold:
    several calls in a row, in one graph.
    """
    function()
    torch.cuda.synchronize()
    num_calls = 1 if is_cold else _WARM_CALLS
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(num_calls):
            function()
    other = torch.zeros(_OTHER_BYTES // 4, device="cuda") if is_cold else None
    times: list[float] = []
    for _ in range(_TIMED_RUNS):
        if other is not None:
            other.amax()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / num_calls)
    return statistics.median(times)


def read_bandwidth() -> float:
    """Bytes a second of the best plain read: the largest value of a 4 GiB vector."""
    content = torch.zeros(_READ_BYTES // 4, device="cuda")
    return _READ_BYTES / seconds(content.amax, is_cold=False)


def matrix_rate() -> float:
    """FLOP a second of cuBLAS on square bf16 matrices of 8192."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / seconds(lambda: a @ b, is_cold=False)


def row(case: str, time_s: float, num_bytes: float, bandwidth: float, note: str = "") -> str:
    share = num_bytes / time_s / bandwidth
    return f"{case:<44} {time_s * 1e6:9.1f} us {num_bytes / 1e6:10.2f} MB {share:7.1%} of read bandwidth  {note}"
