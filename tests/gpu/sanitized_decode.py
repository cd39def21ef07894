"""Tiny launches of every kernel of a decode step, for compute-sanitizer: a script for test_engine.py."""

import sys

import torch

from zeroshot.model.config import GPT2Config
from zeroshot.model.triton_fused import triton_fused_ops
from zeroshot.model.triton_ops import triton_ops


def main() -> None:
    config = GPT2Config(n_embd=192, n_head=3, n_inner=768, n_positions=512)
    types = {"dtype": torch.bfloat16, "device": torch.device("cuda")}
    _, kernels = triton_ops(config, max_num_seqs=3, **types)
    _, fused = triton_fused_ops(config, wanted="on", kernels=kernels, **types)
    torch.cuda.synchronize()
    kernels |= {"fused_decode": fused}
    if set(kernels.values()) != {"triton"}:
        sys.exit(str(kernels))


if __name__ == "__main__":
    main()
