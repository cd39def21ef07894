# ruff: noqa: N803
"""Decode attention of a few sequences, in splits that whoever reads them merges: `merge_projection` does.

    s = scale * log2(e) * q @ k;    max = max(s),    sum = sum(exp2(s - max)),    output = sum(exp2(s - max) * v)

for each SPLIT_SIZE tokens of a context (Dao et al. 2023, "Flash-Decoding for long-context inference"). The same loop
over keys and values as `decode_attention`, with smaller splits, so that a single sequence is spread over the whole
card, and with no last program that merges: the next kernel has to read its input anyway. The split size is fixed, so a
sequence's splits have the same bits in any batch.

The grid is for the longest context that the block tables have room for: programs past a context end at once, and one
graph serves all lengths. They too wait for the grid ahead: a grid must not be complete before the one ahead is.

The tokens of earlier steps, the block tables and the lengths are older than this step: its first kernel, `embedding`,
lets others start when all before it is complete, so programs of this one read them before the grid ahead has ended. A
step adds at most as many tokens to a sequence as it has rows (a guess is several rows of one sequence): those are read
afterwards.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_heads, check_sequences
from zeroshot_kernels.decode_attention.kernel import LOG2_E, attend_split, tile_of
from zeroshot_kernels.split_attention.reference import SPLIT_SIZE

_TILE_BYTES = 8192  # of keys, and as many of values
_LAUNCH = {"num_warps": 4, "num_stages": 1}
"""In half precision a split of head_dim 64 is a single tile: all its loads are issued before anything is computed."""


class SplitResults(NamedTuple):
    """What the splits of each context came to. May be reused by any later launch on the same stream."""

    partial_output: Tensor  # [num_seqs, num_splits, n_head, head_dim] float32
    partial_max: Tensor  # [num_seqs, num_splits, n_head] float32, in powers of two
    partial_sum: Tensor  # [num_seqs, num_splits, n_head] float32

    @classmethod
    def allocate(
        cls, num_seqs: int, n_head: int, head_dim: int, max_context_len: int, device: torch.device
    ) -> "SplitResults":
        shape = (num_seqs, triton.cdiv(max_context_len, SPLIT_SIZE), n_head)
        largest, total = torch.empty((2, *shape), dtype=torch.float32, device=device)
        return cls(torch.empty((*shape, head_dim), dtype=torch.float32, device=device), largest, total)


def split_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    scale: float,
    key_scales: Tensor | None = None,
    value_scales: Tensor | None = None,
    *,
    out: SplitResults | None = None,
    use_pdl: bool = False,
) -> SplitResults:
    """The splits of each context. Returns `out`; its splits past a context are not written.

    query: [num_seqs, n_head, head_dim]; key_cache, value_cache: [num_blocks, block_size, n_head, head_dim], any
    strides, the new token's keys and values already in them; block_tables: [num_seqs, max_blocks] int32 or int64;
    context_lens: [num_seqs] int32, at most max_blocks * block_size each, 0 for a row that is none. `out` may be for
    more sequences and longer contexts. key_scales, value_scales: [n_head] float32, if the caches are in FP8 (compute
    capability 8.9). `use_pdl` needs compute capability 9.0.
    """
    num_seqs, n_head, head_dim = query.shape
    page_size = key_cache.shape[1]
    check_heads(query, key_cache, value_cache, key_scales, value_scales)
    check_sequences(num_seqs, block_tables, context_lens=context_lens)
    max_context_len = block_tables.shape[1] * page_size
    num_splits = triton.cdiv(max_context_len, SPLIT_SIZE)
    if out is None:
        out = SplitResults.allocate(num_seqs, n_head, head_dim, max_context_len, query.device)
    rows, splits, *rest = out.partial_output.shape
    if rows < num_seqs or splits < num_splits or rest != [n_head, head_dim]:
        raise ValueError(f"out for {(rows, splits, *rest)}, needs {(num_seqs, num_splits, n_head, head_dim)}")
    split_attention_kernel[n_head, num_splits, num_seqs](
        query,
        key_cache,
        value_cache,
        block_tables,
        context_lens,
        key_scales,
        value_scales,
        *out,
        splits,
        *query.stride(),
        *key_cache.stride(),
        *value_cache.stride(),
        block_tables.stride(0),
        scale * LOG2_E,
        HEAD_DIM=head_dim,
        PAGE_SIZE=page_size,
        SPLIT_SIZE=SPLIT_SIZE,
        **tile_of(key_cache, tile_bytes=_TILE_BYTES, most_tokens=SPLIT_SIZE),
        NUM_STAGES=_LAUNCH["num_stages"],
        USE_PDL=use_pdl,
        num_warps=_LAUNCH["num_warps"],
        **({"launch_pdl": True} if use_pdl else {}),
    )
    return out


@triton.jit
def split_attention_kernel(
    query_ptr,  # [num_seqs, n_head, HEAD_DIM]
    key_cache_ptr,  # [num_blocks, PAGE_SIZE, n_head, HEAD_DIM]
    value_cache_ptr,  # [num_blocks, PAGE_SIZE, n_head, HEAD_DIM]
    block_tables_ptr,  # [num_seqs, max_blocks]
    context_lens_ptr,  # [num_seqs]
    key_scales_ptr,  # [n_head] or None
    value_scales_ptr,  # [n_head] or None
    partial_output_ptr,  # [num_seqs, max_splits, n_head, HEAD_DIM]
    partial_max_ptr,  # [num_seqs, max_splits, n_head]
    partial_sum_ptr,  # [num_seqs, max_splits, n_head]
    max_splits,
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
    scale_log2e,
    HEAD_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    SPLIT_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_STAGES: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    if USE_PDL:
        tl.extra.cuda.gdc_launch_dependents()
    pid_head = tl.program_id(0).to(tl.int64)
    pid_split = tl.program_id(1)
    pid_seq = tl.program_id(2).to(tl.int64)
    context_len = tl.load(context_lens_ptr + pid_seq, cache_modifier=".cg")
    split_start = pid_split * SPLIT_SIZE
    split_end = tl.minimum(context_len, split_start + SPLIT_SIZE)
    query_row_ptr = query_ptr + pid_seq * stride_query_seq + pid_head * stride_query_head
    key_head_ptr = key_cache_ptr + pid_head * stride_key_head
    value_head_ptr = value_cache_ptr + pid_head * stride_value_head
    block_table_ptr = block_tables_ptr + pid_seq * stride_tables_seq
    if key_scales_ptr is not None:
        scale_log2e *= tl.load(key_scales_ptr + pid_head)
    if BLOCK_N == SPLIT_SIZE:
        positions = split_start + tl.arange(0, BLOCK_N)
        offs_d = tl.arange(0, BLOCK_D)
        page = tl.load(block_table_ptr + split_start // PAGE_SIZE, cache_modifier=".cg").to(tl.int64)
        tokens = (positions % PAGE_SIZE)[:, None]
        key_ptrs = key_head_ptr + page * stride_key_block + tokens * stride_key_token
        key_ptrs += offs_d[None, :] * stride_key_dim
        value_ptrs = value_head_ptr + page * stride_value_block + tokens * stride_value_token
        value_ptrs += offs_d[None, :] * stride_value_dim
        num_old = context_len - tl.num_programs(2)
        mask_d = (offs_d < HEAD_DIM)[None, :]
        is_old = (positions < num_old)[:, None] & mask_d
        is_new = ((positions >= num_old) & (positions < context_len))[:, None] & mask_d
        # Not by the L1, which would keep what else is in a line: the newest tokens' bytes, before they are written.
        old_key = tl.load(key_ptrs, mask=is_old, other=0.0, cache_modifier=".cg")
        old_value = tl.load(value_ptrs, mask=is_old, other=0.0, cache_modifier=".cg")
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
    if BLOCK_N == SPLIT_SIZE:
        # Before the return: behind it the compiler converts what was loaded above, and loads would come after that.
        query_ptrs = query_row_ptr + offs_d * stride_query_dim
        query = tl.load(query_ptrs, mask=offs_d < HEAD_DIM, other=0.0, cache_modifier=".cg")
        new_key = tl.load(key_ptrs, mask=is_new, other=0.0, cache_modifier=".cg")
        new_value = tl.load(value_ptrs, mask=is_new, other=0.0, cache_modifier=".cg")
    if split_start >= context_len:
        return
    if BLOCK_N == SPLIT_SIZE:
        key = tl.where(is_new, new_key.to(tl.float32), old_key.to(tl.float32))
        value = tl.where(is_new, new_value.to(tl.float32), old_value.to(tl.float32))
        scores = tl.sum(key * (query.to(tl.float32) * scale_log2e)[None, :], axis=1)
        scores = tl.where(positions < context_len, scores, float("-inf"))
        split_max = tl.max(scores, axis=0)
        weights = tl.exp2(scores - split_max)
        split_sum = tl.sum(weights, axis=0)
        output = tl.sum(weights[:, None] * value, axis=0)
    else:
        split_max, split_sum, output = attend_split(
            query_row_ptr,
            key_head_ptr,
            value_head_ptr,
            block_table_ptr,
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
            HEAD_DIM,
            PAGE_SIZE,
            BLOCK_N,
            BLOCK_D,
            1,  # one tile at a time
            NUM_STAGES,
        )
    if value_scales_ptr is not None:
        output *= tl.load(value_scales_ptr + pid_head)
    partial = (pid_seq * max_splits + pid_split) * tl.num_programs(0) + pid_head
    offs_d = tl.arange(0, BLOCK_D)
    tl.store(partial_output_ptr + partial * HEAD_DIM + offs_d, output, mask=offs_d < HEAD_DIM)
    tl.store(partial_max_ptr + partial, split_max)
    tl.store(partial_sum_ptr + partial, split_sum)
