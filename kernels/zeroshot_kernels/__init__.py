"""The ops GPT-2 inference is made of, one folder each.

reference.py   in plain PyTorch: what every other version is held to, and runs where there is none
kernel.py      in Triton, for NVIDIA GPUs
benchmark.py   the kernel's speed beside the reference's

The C++ versions of some, for CPUs, are in `cpu/`.
"""
