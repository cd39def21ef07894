# ruff: noqa: N803
"""Decode attention of a few sequences, in splits that whoever reads them merges: `merge_projection` does.

    s = scale * log2(e) * q @ k;    max = max(s),    sum = sum(exp2(s - max)),    output = sum(exp2(s - max) * v)

for each SPLIT_SIZE tokens of a context (Dao et al. 2023, "Flash-Decoding for long-context inference"). Smaller splits
than those of `decode_attention`, so that a single sequence is spread over the card, and no last program that merges:
the next kernel has to read its input anyway. The split size is fixed, so a sequence's splits have the same bits in any
batch. As there, each row of a tile of tokens is an online softmax of its own, and they meet once.

The grid is for the longest context that the block tables have room for: programs past a context end at once, and one
graph serves all lengths. They too wait for the grid ahead: a grid must not be complete before the one ahead is.

The tokens of earlier steps, the block tables and the lengths are older than this step: its first kernel, `embedding`,
lets others start when all before it is complete, so programs of this one read them before the grid ahead has ended. A
step adds at most as many tokens to a sequence as it has rows (a guess is several rows of one sequence): those are read
afterwards. The newest, the only one that a step of one row adds, is a vector and not a tile.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_heads, check_sequences
from zeroshot_kernels.decode_attention.kernel import LOG2_E
from zeroshot_kernels.gemv_kernel import launch_options
from zeroshot_kernels.split_attention.reference import SPLIT_SIZE

_TILE_TOKENS = 32
_BYTES_PER_WARP = 8192
"""Of a split's keys, and as many of its values, all on their way before anything is computed: 64 registers a thread."""


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

    def of_splits(self, num_splits: int) -> "SplitResults":
        """The same memory, for as many splits as there are: `merge_projection` takes what few there can be at once."""
        rows, most = self.partial_max.shape[:2]
        if num_splits == most:
            return self
        return SplitResults(*(t.flatten(0, 1)[: rows * num_splits].view(rows, num_splits, *t.shape[2:]) for t in self))


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
    """The splits of each context. Returns `out`, `of_splits` of the longest there can be; those past a context are not
    written.

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
    out = out.of_splits(num_splits)
    block_d = max(16, triton.next_power_of_2(head_dim))
    num_warps = min(16, max(4, SPLIT_SIZE * block_d * query.element_size() // _BYTES_PER_WARP))
    split_attention_kernel[n_head, num_splits, num_seqs](
        query,
        key_cache,
        value_cache,
        block_tables,
        context_lens,
        key_scales,
        value_scales,
        *out,
        num_splits,
        *query.stride(),
        *key_cache.stride(),
        *value_cache.stride(),
        block_tables.stride(0),
        scale * LOG2_E,
        HEAD_DIM=head_dim,
        PAGE_SIZE=page_size,
        SPLIT_SIZE=SPLIT_SIZE,
        BLOCK_N=_TILE_TOKENS,
        BLOCK_D=block_d,
        **launch_options(num_warps, num_seqs, use_pdl=use_pdl),
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
    USE_PDL: tl.constexpr,
    ONE_ROW: tl.constexpr,
):
    if USE_PDL:
        tl.extra.cuda.gdc_launch_dependents()
    pid_head = tl.program_id(0).to(tl.int64)
    pid_split = tl.program_id(1)
    pid_seq = tl.program_id(2).to(tl.int64)
    context_len = tl.load(context_lens_ptr + pid_seq, cache_modifier=".cg")
    newest = context_len - 1
    num_old = context_len - tl.num_programs(2)
    split_start = pid_split * SPLIT_SIZE
    has_newest = (newest >= split_start) & (newest < split_start + SPLIT_SIZE)
    if key_scales_ptr is not None:
        scale_log2e *= tl.load(key_scales_ptr + pid_head)
    offs_n = tl.arange(0, BLOCK_N)
    offs_d = tl.arange(0, BLOCK_D)
    mask_d = (offs_d < HEAD_DIM)[None, :]
    key_head_ptr = key_cache_ptr + pid_head * stride_key_head + offs_d * stride_key_dim
    value_head_ptr = value_cache_ptr + pid_head * stride_value_head + offs_d * stride_value_dim
    block_table_ptr = block_tables_ptr + pid_seq * stride_tables_seq
    key_ptrs, value_ptrs, keys, values = (), (), (), ()
    for tile in tl.static_range(SPLIT_SIZE // BLOCK_N):
        positions = split_start + tile * BLOCK_N + offs_n
        page_ptrs = block_table_ptr + positions // PAGE_SIZE
        pages = tl.load(page_ptrs, mask=positions < context_len, other=0, cache_modifier=".cg").to(tl.int64)
        tokens = positions % PAGE_SIZE
        key_rows = pages * stride_key_block + tokens * stride_key_token
        value_rows = pages * stride_value_block + tokens * stride_value_token
        key_ptrs += (key_head_ptr[None, :] + key_rows[:, None],)  # type: ignore[assignment]
        value_ptrs += (value_head_ptr[None, :] + value_rows[:, None],)  # type: ignore[assignment]
        is_old = (positions < num_old)[:, None] & mask_d
        # Not by the L1, which would keep what else is in a line: the newest tokens' bytes, before they are written.
        # Tables and the newest token come past it as well: it may hold what they were.
        keys += (tl.load(key_ptrs[tile], mask=is_old, other=0.0, cache_modifier=".cg"),)  # type: ignore[assignment]
        values += (tl.load(value_ptrs[tile], mask=is_old, other=0.0, cache_modifier=".cg"),)  # type: ignore[assignment]
    newest_page_ptr = block_table_ptr + tl.maximum(newest, 0) // PAGE_SIZE
    newest_page = tl.load(newest_page_ptr, mask=has_newest, other=0, cache_modifier=".cg").to(tl.int64)
    newest_token = newest % PAGE_SIZE
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
    # Before the return: behind it the compiler converts what was loaded above, and loads would come after that.
    query_ptrs = query_ptr + pid_seq * stride_query_seq + pid_head * stride_query_head + offs_d * stride_query_dim
    query = tl.load(query_ptrs, mask=offs_d < HEAD_DIM, other=0.0)
    mask_newest = offs_d < tl.where(has_newest, HEAD_DIM, 0)
    newest_key_ptrs = key_head_ptr + newest_page * stride_key_block + newest_token * stride_key_token
    newest_key = tl.load(newest_key_ptrs, mask=mask_newest, other=0.0, cache_modifier=".cg")
    newest_value_ptrs = value_head_ptr + newest_page * stride_value_block + newest_token * stride_value_token
    newest_value = tl.load(newest_value_ptrs, mask=mask_newest, other=0.0, cache_modifier=".cg")
    if split_start >= context_len:
        return
    query = query.to(tl.float32) * scale_log2e
    newest_score = tl.where(has_newest, tl.sum(query * newest_key.to(tl.float32), axis=0), float("-inf"))
    # Finite, so that a row with nothing in it gives no inf - inf.
    row_max = tl.full([BLOCK_N], -1e38, tl.float32)
    scores, chosen = (), ()
    for tile in tl.static_range(SPLIT_SIZE // BLOCK_N):
        positions = split_start + tile * BLOCK_N + offs_n
        key, value = keys[tile].to(tl.float32), values[tile].to(tl.float32)  # type: ignore[var-annotated]
        if not ONE_ROW:
            is_new = ((positions >= num_old) & (positions < newest))[:, None] & mask_d
            new_key = tl.load(key_ptrs[tile], mask=is_new, other=0.0, cache_modifier=".cg")
            new_value = tl.load(value_ptrs[tile], mask=is_new, other=0.0, cache_modifier=".cg")
            key = tl.where(is_new, new_key.to(tl.float32), key)
            value = tl.where(is_new, new_value.to(tl.float32), value)
        score = tl.where(positions < newest, tl.sum(key * query[None, :], axis=1), float("-inf"))
        row_max = tl.maximum(row_max, score)
        scores += (score,)
        chosen += (value,)
    row_sum = tl.zeros([BLOCK_N], tl.float32)
    row_output = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for tile in tl.static_range(SPLIT_SIZE // BLOCK_N):
        weights = tl.exp2(scores[tile] - row_max)
        row_sum += weights
        row_output += weights[:, None] * chosen[tile]
    split_max = tl.maximum(tl.max(row_max, axis=0), newest_score)
    rescale = tl.exp2(row_max - split_max)
    newest_weight = tl.exp2(newest_score - split_max)
    split_sum = tl.sum(row_sum * rescale, axis=0) + newest_weight
    output = tl.sum(row_output * rescale[:, None], axis=0) + newest_weight * newest_value.to(tl.float32)
    if value_scales_ptr is not None:
        output *= tl.load(value_scales_ptr + pid_head)
    partial = (pid_seq * max_splits + pid_split) * tl.num_programs(0) + pid_head
    tl.store(partial_output_ptr + partial * HEAD_DIM + offs_d, output, mask=offs_d < HEAD_DIM)
    tl.store(partial_max_ptr + partial, split_max)
    tl.store(partial_sum_ptr + partial, split_sum)
