# ruff: noqa: N803
"""Decode attention: one new token per sequence over its paged KV cache, split along the context (flash-decoding).

    out[s, h] = softmax(scale * query[s, h] @ K[s, h]^T) @ V[s, h]

Every SPLIT_SIZE tokens of a context are one program: it keeps an online softmax (Milakov and Gimelshein 2018) and, if
the context has more splits than one, leaves (max, sum, unnormalised output) in the workspace. The program that arrives
last at a (sequence, head) merges the splits, always in the order of the context (Dao et al. 2023, "Flash-Decoding for
long-context inference"). The split size is fixed, so a sequence's result is the same bits in any batch.

A query of one token makes a matrix-vector product: on tensor cores 15 of 16 rows would be padding, so the products run
on the CUDA cores, in float32, and the loop's job is to keep enough of the cache in flight. The cache may have any
strides. [num_blocks, n_head, {K, V}, 64, head_dim] in memory, permuted to the logical shape, makes a page of a head
16 KB in one piece (bf16, head_dim 64).

query, out: [num_seqs, n_head, head_dim], fp32, fp16 or bf16; statistics and sums are float32.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_heads, check_sequences

LOG2_E = 1.4426950408889634
"""Scores are in powers of two: exp2 is the hardware's exponential."""

SPLIT_SIZE = 256
"""Tokens a program reads: 64 KB of bf16 keys and values for head_dim 64, long enough to hide the start of a program,
and 2 splits at a context of 512 give 512 sequences of GPT-2 12,288 programs. In FP8 it is twice as many tokens."""


class Launch(NamedTuple):
    """How a program goes through its split."""

    tile_bytes: int
    """Of keys, and as many of values."""
    tiles: int
    """Loaded together, before any of them is used."""
    num_stages: int
    """More than one: later tiles wait in shared memory while earlier ones are used."""


_NUM_WARPS = 4
_PIPELINED = Launch(tile_bytes=8192, tiles=1, num_stages=3)
"""At 114 registers a thread (sm_90, bf16, head_dim 64) four programs fit on an SM: up to 128 KB in flight, where
Little's law asks for 23 KB on an H200."""
_FP8 = Launch(tile_bytes=2048, tiles=4, num_stages=1)
"""In FP8 the instructions are what takes the time: converting makes them as many for half the bytes. Without the way
through shared memory, and with one rescaling for four tiles, the loop has 8.3 a key and value instead of 10 (sm_90,
head_dim 64, counted in the machine code); a tile is one load of 16 bytes a thread. At 71 registers seven programs fit
on an SM: 112 KB in flight."""


class DecodeWorkspace(NamedTuple):
    """What the programs of one launch tell each other. May be reused by any later launch on the same stream."""

    partial_output: Tensor  # [num_seqs, n_head, num_splits, head_dim] float32
    partial_max: Tensor  # [num_seqs, n_head, num_splits] float32
    partial_sum: Tensor  # [num_seqs, n_head, num_splits] float32
    arrivals: Tensor  # [num_seqs, n_head] int32, all 0 between launches

    @classmethod
    def allocate(
        cls, num_seqs: int, n_head: int, head_dim: int, max_context_len: int, device: torch.device
    ) -> "DecodeWorkspace":
        shape = (num_seqs, n_head, triton.cdiv(max_context_len, SPLIT_SIZE))
        return cls(
            torch.empty((*shape, head_dim), dtype=torch.float32, device=device),
            torch.empty(shape, dtype=torch.float32, device=device),
            torch.empty(shape, dtype=torch.float32, device=device),
            torch.zeros(shape[:2], dtype=torch.int32, device=device),
        )


def decode_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    scale: float,
    key_scales: Tensor | None = None,
    value_scales: Tensor | None = None,
    *,
    out: Tensor | None = None,
    workspace: DecodeWorkspace | None = None,
) -> Tensor:
    """softmax(scale * q @ K^T) @ V of each sequence over its own context. Returns `out`: [num_seqs, n_head, head_dim].

    key_cache, value_cache: [num_blocks, block_size, n_head, head_dim], any strides, the new token's keys and values
    already in them; block_tables: [num_seqs, max_blocks] int32 or int64; context_lens: [num_seqs] int32, at most
    max_blocks * block_size each. A context of 0 tokens (a padding row of a captured graph) gives zeros. Nothing past a
    context is read. The grid depends on shapes alone; given `out` and a `workspace` for as many sequences and at least
    max_blocks * block_size tokens, nothing is allocated. key_scales, value_scales: [n_head] float32, if the caches are
    in FP8 (E4M3; compute capability 8.9): a head's keys and values are what is stored times its scale.
    """
    num_seqs, n_head, head_dim = query.shape
    block_size = key_cache.shape[1]
    check_heads(query, key_cache, value_cache, key_scales, value_scales)
    check_sequences(num_seqs, block_tables, context_lens=context_lens)
    max_context_len = block_tables.shape[1] * block_size
    split_size = 2 * SPLIT_SIZE if key_scales is not None else SPLIT_SIZE
    num_splits = triton.cdiv(max_context_len, split_size)
    launch = _FP8 if key_scales is not None else _PIPELINED
    if out is None:
        out = torch.empty_like(query)
    if workspace is None:
        workspace = DecodeWorkspace.allocate(num_seqs, n_head, head_dim, max_context_len, query.device)
    rows, heads, splits, width = workspace.partial_output.shape
    if rows < num_seqs or splits < num_splits or (heads, width) != (n_head, head_dim):
        raise ValueError(
            f"workspace for {(rows, heads, splits, width)}, needs {(num_seqs, n_head, num_splits, head_dim)}"
        )
    decode_attention_kernel[n_head, num_splits, num_seqs](
        query,
        key_cache,
        value_cache,
        block_tables,
        context_lens,
        key_scales,
        value_scales,
        out,
        *workspace,
        splits,
        *query.stride(),
        *key_cache.stride(),
        *value_cache.stride(),
        block_tables.stride(0),
        *out.stride(),
        scale * LOG2_E,
        HEAD_DIM=head_dim,
        PAGE_SIZE=block_size,
        SPLIT_SIZE=split_size,
        **tile_of(key_cache, tile_bytes=launch.tile_bytes, most_tokens=64),
        TILES=launch.tiles,
        NUM_STAGES=launch.num_stages,
        num_warps=_NUM_WARPS,
    )
    return out


def tile_of(cache: Tensor, *, tile_bytes: int, most_tokens: int) -> dict[str, int]:
    """BLOCK_N tokens by BLOCK_D of a head's elements, for caches [num_blocks, block_size, n_head, head_dim]."""
    block_size, head_dim = cache.shape[1], cache.shape[3]
    block_d = max(16, triton.next_power_of_2(head_dim))
    # A tile lies within a page, so that it has one page id: the largest power of two that divides the page.
    block_n = min(most_tokens, block_size & -block_size, max(16, tile_bytes // (block_d * cache.element_size())))
    return {"BLOCK_N": block_n, "BLOCK_D": block_d}


@triton.jit
def decode_attention_kernel(
    query_ptr,  # [num_seqs, n_head, HEAD_DIM]
    key_cache_ptr,  # [num_blocks, PAGE_SIZE, n_head, HEAD_DIM]
    value_cache_ptr,  # [num_blocks, PAGE_SIZE, n_head, HEAD_DIM]
    block_tables_ptr,  # [num_seqs, max_blocks]
    context_lens_ptr,  # [num_seqs]
    key_scales_ptr,  # [n_head] or None
    value_scales_ptr,  # [n_head] or None
    out_ptr,  # [num_seqs, n_head, HEAD_DIM]
    partial_output_ptr,  # [num_seqs, n_head, workspace_splits, HEAD_DIM]
    partial_max_ptr,  # [num_seqs, n_head, workspace_splits]
    partial_sum_ptr,  # [num_seqs, n_head, workspace_splits]
    arrivals_ptr,  # [num_seqs, n_head]
    workspace_splits,
    stride_query_seq,
    stride_query_head,
    stride_query_dim,
    stride_key_block,
    stride_key_token,
    stride_key_head,
    stride_key_dim,
    stride_value_block,
    stride_value_token,
    stride_value_head,
    stride_value_dim,
    stride_tables_seq,
    stride_out_seq,
    stride_out_head,
    stride_out_dim,
    scale_log2e,
    HEAD_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    SPLIT_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TILES: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    pid_head = tl.program_id(0).to(tl.int64)
    pid_split = tl.program_id(1)
    pid_seq = tl.program_id(2).to(tl.int64)
    context_len = tl.load(context_lens_ptr + pid_seq)
    num_splits = tl.cdiv(context_len, SPLIT_SIZE)
    if pid_split >= tl.maximum(num_splits, 1):
        return

    if key_scales_ptr is not None:
        scale_log2e *= tl.load(key_scales_ptr + pid_head)
    split_max, split_sum, output = attend_split(
        query_ptr + pid_seq * stride_query_seq + pid_head * stride_query_head,
        key_cache_ptr + pid_head * stride_key_head,
        value_cache_ptr + pid_head * stride_value_head,
        block_tables_ptr + pid_seq * stride_tables_seq,
        pid_split * SPLIT_SIZE,
        tl.minimum(context_len, (pid_split + 1) * SPLIT_SIZE),
        stride_query_dim,
        stride_key_block,
        stride_key_token,
        stride_key_dim,
        stride_value_block,
        stride_value_token,
        stride_value_dim,
        scale_log2e,
        HEAD_DIM,
        PAGE_SIZE,
        BLOCK_N,
        BLOCK_D,
        TILES,
        NUM_STAGES,
    )
    if value_scales_ptr is not None:
        output *= tl.load(value_scales_ptr + pid_head)

    offs_d = tl.arange(0, BLOCK_D)
    mask_d = offs_d < HEAD_DIM
    out_row_ptr = out_ptr + pid_seq * stride_out_seq + pid_head * stride_out_head
    if num_splits <= 1:
        output = output / tl.where(context_len == 0, 1.0, split_sum)
        tl.store(out_row_ptr + offs_d * stride_out_dim, output.to(out_ptr.dtype.element_ty), mask=mask_d)
        return

    row = pid_seq * tl.num_programs(0) + pid_head
    partial = row * workspace_splits + pid_split
    tl.store(partial_output_ptr + partial * HEAD_DIM + offs_d, output, mask=mask_d)
    tl.store(partial_max_ptr + partial, split_max)
    tl.store(partial_sum_ptr + partial, split_sum)
    # All threads' stores come before the one thread's release; the acquire of the last to arrive sees everyone's.
    tl.debug_barrier()
    if tl.atomic_add(arrivals_ptr + row, 1, sem="acq_rel", scope="gpu") == num_splits - 1:
        _merge_splits(
            partial_output_ptr + row * workspace_splits * HEAD_DIM,
            partial_max_ptr + row * workspace_splits,
            partial_sum_ptr + row * workspace_splits,
            num_splits,
            out_row_ptr + offs_d * stride_out_dim,
            HEAD_DIM,
            BLOCK_D,
        )
        tl.store(arrivals_ptr + row, 0)


@triton.jit
def attend_split(
    query_row_ptr,  # [HEAD_DIM]
    key_head_ptr,  # [num_blocks, PAGE_SIZE, HEAD_DIM]
    value_head_ptr,  # [num_blocks, PAGE_SIZE, HEAD_DIM]
    block_table_ptr,  # [max_blocks]
    split_start,
    split_end,
    stride_query_dim,
    stride_key_block,
    stride_key_token,
    stride_key_dim,
    stride_value_block,
    stride_value_token,
    stride_value_dim,
    scale_log2e,
    HEAD_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TILES: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    """One head of one sequence over the tokens from split_start to split_end: (max, sum, unnormalised output)."""
    offs_n = tl.arange(0, BLOCK_N)
    offs_d = tl.arange(0, BLOCK_D)
    mask_d = offs_d < HEAD_DIM
    query = tl.load(query_row_ptr + offs_d * stride_query_dim, mask=mask_d, other=0.0, cache_modifier=".cg")
    query = query.to(tl.float32) * scale_log2e
    key_tile_ptr = key_head_ptr + offs_n[:, None] * stride_key_token + offs_d[None, :] * stride_key_dim
    value_tile_ptr = value_head_ptr + offs_n[:, None] * stride_value_token + offs_d[None, :] * stride_value_dim

    # Each row of the tile is an online softmax of its own, and they meet once, after the loop: in the loop no warp
    # waits for another. The first maximum is finite, so that a row with nothing in it yet gives no inf - inf.
    acc_max = tl.full([BLOCK_N], -1e38, tl.float32)
    acc_sum = tl.zeros([BLOCK_N], tl.float32)
    acc_output = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for first in tl.range(split_start, split_end, TILES * BLOCK_N, num_stages=NUM_STAGES):
        keys, values = (), ()
        for tile in tl.static_range(TILES):
            start = first + tile * BLOCK_N
            # The split may end before the last tiles: they read nothing, of the page it ends in.
            page = tl.load(block_table_ptr + tl.minimum(start, split_end - 1) // PAGE_SIZE).to(tl.int64)
            offset = start % PAGE_SIZE
            mask = (start + offs_n < split_end)[:, None] & mask_d[None, :]
            key_ptrs = key_tile_ptr + page * stride_key_block + offset * stride_key_token
            value_ptrs = value_tile_ptr + page * stride_value_block + offset * stride_value_token
            keys += (tl.load(key_ptrs, mask=mask, other=0.0),)  # type: ignore[assignment]
            values += (tl.load(value_ptrs, mask=mask, other=0.0),)  # type: ignore[assignment]
        scores = ()
        new_max = acc_max
        for tile in tl.static_range(TILES):
            score = tl.sum(keys[tile].to(tl.float32) * query[None, :], axis=1)
            score = tl.where(first + tile * BLOCK_N + offs_n < split_end, score, float("-inf"))
            new_max = tl.maximum(new_max, score)
            scores += (score,)
        rescale = tl.exp2(acc_max - new_max)
        acc_sum *= rescale
        acc_output *= rescale[:, None]
        for tile in tl.static_range(TILES):
            weights = tl.exp2(scores[tile] - new_max)
            acc_sum += weights
            acc_output += weights[:, None] * values[tile].to(tl.float32)
        acc_max = new_max
    split_max = tl.max(acc_max, axis=0)
    rescale = tl.exp2(acc_max - split_max)
    return split_max, tl.sum(acc_sum * rescale, axis=0), tl.sum(acc_output * rescale[:, None], axis=0)


@triton.jit
def _merge_splits(
    partial_output_ptr,  # [num_splits, HEAD_DIM]
    partial_max_ptr,  # [num_splits]
    partial_sum_ptr,  # [num_splits]
    num_splits,
    out_ptrs,  # [BLOCK_D]
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One split after the other, first to last. Loads skip the L1, which may hold what was there before."""
    offs_d = tl.arange(0, BLOCK_D)
    mask_d = offs_d < HEAD_DIM
    acc_max = tl.load(partial_max_ptr, cache_modifier=".cg")
    acc_sum = tl.load(partial_sum_ptr, cache_modifier=".cg")
    acc_output = tl.load(partial_output_ptr + offs_d, mask=mask_d, other=0.0, cache_modifier=".cg")
    for split in range(1, num_splits):
        split_max = tl.load(partial_max_ptr + split, cache_modifier=".cg")
        split_sum = tl.load(partial_sum_ptr + split, cache_modifier=".cg")
        output = tl.load(partial_output_ptr + split * HEAD_DIM + offs_d, mask=mask_d, other=0.0, cache_modifier=".cg")
        new_max = tl.maximum(acc_max, split_max)
        rescale = tl.exp2(acc_max - new_max)
        weight = tl.exp2(split_max - new_max)
        acc_sum = acc_sum * rescale + split_sum * weight
        acc_output = acc_output * rescale + output * weight
        acc_max = new_max
    tl.store(out_ptrs, (acc_output / acc_sum).to(out_ptrs.dtype.element_ty), mask=mask_d)
