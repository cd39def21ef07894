"""Tiny launches of every kernel of a decode step, for compute-sanitizer: a script for test_engine.py."""

import itertools
import sys

import torch

from zeroshot.model.config import GPT2Config
from zeroshot.model.fused_decode import FusedOps
from zeroshot.model.triton_fused import _Probe, fused_kernels
from zeroshot.model.triton_ops import TOLERANCES, relative_error, triton_ops


def main() -> None:
    config = GPT2Config(n_embd=192, n_head=3, n_inner=768, n_positions=512)
    dtype, device = torch.bfloat16, torch.device("cuda")
    _, kernels = triton_ops(config, max_num_seqs=3, dtype=dtype, device=device)
    # Not by `triton_fused_ops`, which records a graph: without PyTorch's allocator nothing can be allocated in one.
    early = (False, True) if torch.cuda.get_device_capability(device) >= (9, 0) else (False,)
    for num_rows, use_pdl in itertools.product((1, 2), early):
        layer = _Probe(config, num_rows, dtype, device, None)
        ops = fused_kernels(config, use_pdl, device)
        error = relative_error(layer.run(ops, 1)[:3], layer.run(FusedOps(), 1)[:3])
        is_right = error <= TOLERANCES[dtype]
        kernels[f"{num_rows} fused rows, started early: {use_pdl}"] = "triton" if is_right else f"off by {error:.1e}"
    torch.cuda.synchronize()
    if set(kernels.values()) != {"triton"}:
        sys.exit(str(kernels))


if __name__ == "__main__":
    main()
