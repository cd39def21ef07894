# ruff: noqa: N803
"""Matrix-vector products whose weights are read ahead: what the kernels of a decode step of a few rows share.

A matrix-vector product waits for its weights and for nothing else. A program owns a few rows of the weight, whole, and
has them in registers before it looks at its input. With programmatic dependent launch (PDL) that is before the kernel
ahead has ended: `gdc_launch_dependents` lets the next grid start as soon as this one is resident, `gdc_wait` returns
when the grid ahead is complete and what it wrote can be read. Up to there a program may touch weights only.

Every row of the input is worked on by itself, by the same operations in the same order: its result has the same bits at
any number of rows. Sums are float32, in an order that the shapes fix; there are no atomics.
"""

from typing import Any

import triton
import triton.language as tl

_ELEMENTS_PER_THREAD = 64
"""Of the weight tile: eight 16-byte loads of bf16 in flight a thread. Fewer threads meet at fewer barriers: on an H200
a layer of 124M takes 15.7 us, against 18.1 with 32 elements and 22.3 with 16 (by hand)."""


def rows_per_program(n_out: int) -> int:
    """Rows of the weight a program owns.

    For 124M on 132 SMs: 576 and 768 programs for QKV and FC, 384 for the projections. The SM with the most has 3 % to
    15 % more than its share; at twice the rows, a third more.
    """
    return 4 if n_out >= 2048 else 2


def launch_options(block_n: int, n_in: int, num_rows: int, *, use_pdl: bool) -> dict[str, Any]:
    """What a kernel that holds a tile of [block_n, n_in] weights is launched with.

    One row has code of its own. Before a loop over rows the compiler converts the whole tile, once: 200 instructions
    that a single row's loads would wait for, and up to twice the registers, so that the grid that follows finds no
    room beside this one.
    """
    block_k = triton.next_power_of_2(n_in)
    num_warps = min(16, max(1, block_n * block_k // (32 * _ELEMENTS_PER_THREAD)))
    options = {"BLOCK_N": block_n, "BLOCK_K": block_k, "USE_PDL": use_pdl, "ONE_ROW": num_rows == 1}
    options["num_warps"] = num_warps
    return options | ({"launch_pdl": True} if use_pdl else {})  # the interpreter knows no such option


@triton.jit
def weight_tile(weight_ptr, bias_ptr, offs_n, offs_k, N_IN: tl.constexpr, N_OUT: tl.constexpr):
    """[BLOCK_N, BLOCK_K] of a linear layer's weight, in its dtype, zeros outside, and [BLOCK_N] of its bias, float32.

    Each weight is read by one program, once: it is the first that the L2 cache may forget.
    """
    mask = (offs_n < N_OUT)[:, None] & (offs_k < N_IN)[None, :]
    weight_ptrs = weight_ptr + offs_n.to(tl.int64)[:, None] * N_IN + offs_k[None, :]
    weight = tl.load(weight_ptrs, mask=mask, other=0.0, eviction_policy="evict_first")
    return weight, tl.load(bias_ptr + offs_n, mask=offs_n < N_OUT, other=0.0).to(tl.float32)


@triton.jit
def normalised(x, ln_weight, ln_bias, mask_k, eps, N_IN: tl.constexpr):
    """LayerNorm of one row, [BLOCK_K] float32, zeros outside. The variance is taken about the mean."""
    mean = tl.sum(x, axis=0) / N_IN
    centred = tl.where(mask_k, x - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / N_IN
    return centred * (1.0 / tl.sqrt(variance + eps)) * ln_weight + ln_bias
