# ruff: noqa: N803
"""Prefill attention: causal attention of packed prompt chunks, new tokens plus cached prefix, over the paged KV cache.

    out[t, h] = softmax(scale * query[t, h] @ K[:p(t) + 1, h]^T) @ V[:p(t) + 1, h],    p(t) the position of token t

FlashAttention-2 (Dao 2023, algorithm 1): a program takes BLOCK_M queries of one sequence and head, walks the keys with
an online softmax, first the tiles that every query sees whole, then those on the diagonal. Sequences of any lengths
are packed with no padding: the grid has room for the most query blocks that these numbers of tokens and sequences can
make, and each program finds its own from `query_lens`, on the device: those that see the most keys start first. Keys
and values, those of the new tokens too, are read from the cache, whose strides may be any.

query, out: [num_tokens, n_head, head_dim], fp32, fp16 or bf16; statistics and sums are float32. In fp32 the products
are exact ("ieee": no TF32).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_heads, check_sequences
from zeroshot_kernels.decode_attention.kernel import LOG2_E

_LAUNCH = {
    # (bytes an element, BLOCK_D > 64): BLOCK_M, BLOCK_N, warps, registers a thread
    (2, False): (64, 64, 4, 128),  # four programs on an SM
    (2, True): (128, 32, 8, None),  # the accumulator is twice as wide: with 64 keys it spills on sm_80
    (4, False): (32, 16, 4, None),  # without tensor cores operands live in registers: small tiles
    (4, True): (32, 16, 8, None),
}
"""From compiling each for sm_80 and sm_90 and counting registers and spilled bytes. (2, False) is from an H200 (by
hand, 16 forms): 8 prompts of 1,024 tokens and 12 heads took 58.7 us; 63.3 with 128 queries and 8 warps, 65.0 with 128
and 4 warps, 66.1 with two stages, 79.4 with 128 queries by 32 keys, 81.3 with 256 queries."""

_FP8_LAUNCH = _LAUNCH | {(2, False): (128, 64, 8, 128)}
"""The warps share the conversion of keys and values: the loop of eight has 364 instructions, that of four 441, each for
16 queries a warp (sm_90, bf16, counted in the machine code)."""

_SUMS = tl.constexpr(8)
"""That each row's weights add up to, until the end. The tensor cores leave two of a row's eight to a thread, whole: in
the loop nothing has to go from thread to thread."""

_NUM_STAGES = 3
"""Two tiles are on their way while one is worked on."""


def prefill_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    query_lens: Tensor,
    context_lens: Tensor,
    scale: float,
    key_scales: Tensor | None = None,
    value_scales: Tensor | None = None,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Causal softmax(scale * q @ K^T) @ V of each sequence's newest tokens over all its tokens so far. Returns `out`.

    query: [num_tokens, n_head, head_dim], sequences packed one after the other; key_cache, value_cache:
    [num_blocks, block_size, n_head, head_dim], any strides, the new tokens' keys and values already in them;
    block_tables: [num_seqs, max_blocks] int32 or int64; query_lens, context_lens: [num_seqs] int32, a context counts
    the new tokens. Nothing past a context is read; rows past sum(query_lens) are not written. key_scales, value_scales:
    [n_head] float32, if the caches are in FP8 (E4M3; compute capability 8.9).
    """
    num_tokens, n_head, head_dim = query.shape
    num_seqs, block_size = len(block_tables), key_cache.shape[1]
    check_heads(query, key_cache, value_cache, key_scales, value_scales)
    check_sequences(num_seqs, block_tables, query_lens=query_lens, context_lens=context_lens)
    if out is None:
        out = torch.empty_like(query)
    block_d = max(16, triton.next_power_of_2(head_dim))
    launches = _LAUNCH if key_scales is None else _FP8_LAUNCH
    block_m, block_n, num_warps, registers = launches[query.element_size(), block_d > 64]
    max_query_blocks = num_tokens // block_m + num_seqs
    prefill_attention_kernel[n_head, max_query_blocks](
        query,
        key_cache,
        value_cache,
        block_tables,
        query_lens,
        context_lens,
        key_scales,
        value_scales,
        out,
        num_seqs,
        *query.stride(),
        *key_cache.stride(),
        *value_cache.stride(),
        block_tables.stride(0),
        *out.stride(),
        scale * LOG2_E,
        HEAD_DIM=head_dim,
        PAGE_SIZE=block_size,
        BLOCK_SEQS=triton.next_power_of_2(num_seqs),
        BLOCK_M=block_m,
        BLOCK_N=min(block_n, block_size & -block_size),  # a tile lies within a page
        BLOCK_D=block_d,
        LEVEL_BITS=(block_tables.shape[1] * block_size // block_m).bit_length(),
        num_warps=num_warps,
        num_stages=_NUM_STAGES,
        **({"maxnreg": registers} if registers else {}),
    )
    return out


@triton.jit(do_not_specialize=["num_seqs"])  # or a first batch of 1 or 16 would wait for a compiler
def prefill_attention_kernel(
    query_ptr,  # [num_tokens, n_head, HEAD_DIM]
    key_cache_ptr,  # [num_blocks, PAGE_SIZE, n_head, HEAD_DIM]
    value_cache_ptr,  # [num_blocks, PAGE_SIZE, n_head, HEAD_DIM]
    block_tables_ptr,  # [num_seqs, max_blocks]
    query_lens_ptr,  # [num_seqs]
    context_lens_ptr,  # [num_seqs]
    key_scales_ptr,  # [n_head] or None
    value_scales_ptr,  # [n_head] or None
    out_ptr,  # [num_tokens, n_head, HEAD_DIM]
    num_seqs,
    stride_query_token,
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
    stride_out_token,
    stride_out_head,
    stride_out_dim,
    scale_log2e,
    HEAD_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    BLOCK_SEQS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    LEVEL_BITS: tl.constexpr,
):
    pid_head = tl.program_id(0).to(tl.int64)
    pid_block = tl.program_id(1)
    offs_s = tl.arange(0, BLOCK_SEQS)
    query_lens = tl.load(query_lens_ptr + offs_s, mask=offs_s < num_seqs, other=0)
    context_lens = tl.load(context_lens_ptr + offs_s, mask=offs_s < num_seqs, other=0)
    if pid_block >= tl.sum(tl.cdiv(query_lens, BLOCK_M), axis=0):
        return
    seq, block = longest_first(query_lens, context_lens, pid_block, BLOCK_M, LEVEL_BITS)
    first_row = tl.sum(tl.where(offs_s < seq, query_lens, 0), axis=0).to(tl.int64)
    block_start = block * BLOCK_M
    query_len = tl.sum(tl.where(offs_s == seq, query_lens, 0), axis=0)
    context_len = tl.sum(tl.where(offs_s == seq, context_lens, 0), axis=0)

    offs_m = block_start + tl.arange(0, BLOCK_M)
    offs_n = tl.arange(0, BLOCK_N)
    offs_d = tl.arange(0, BLOCK_D)
    # A tile's page is looked up a tile ahead. Looked up for the tile itself, half of the loop's stages would go to
    # that, and each tile would be waited for as soon as it is asked for. Made 64 bits only for the product, it would be
    # loaded at the end of the loop (sm_90), with nothing to do until it is there.
    block_table_ptr = block_tables_ptr + seq.to(tl.int64) * stride_tables_seq
    page = tl.load(block_table_ptr).to(tl.int64)
    mask_query = (offs_m < query_len)[:, None] & (offs_d < HEAD_DIM)[None, :]
    rows = (first_row + offs_m)[:, None]
    query_ptrs = query_ptr + rows * stride_query_token + pid_head * stride_query_head
    query = tl.load(query_ptrs + offs_d[None, :] * stride_query_dim, mask=mask_query, other=0.0)
    key_tile_ptr = key_cache_ptr + pid_head * stride_key_head
    key_tile_ptr += offs_n[:, None] * stride_key_token + offs_d[None, :] * stride_key_dim
    value_tile_ptr = value_cache_ptr + pid_head * stride_value_head
    value_tile_ptr += offs_n[:, None] * stride_value_token + offs_d[None, :] * stride_value_dim

    if key_scales_ptr is not None:
        scale_log2e *= tl.load(key_scales_ptr + pid_head)
    acc_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    acc_sum = tl.zeros([BLOCK_M, _SUMS], tl.float32)
    acc_output = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    first_position = context_len - query_len + block_start
    seen_by_all = (first_position + 1) // BLOCK_N * BLOCK_N
    end = tl.minimum(first_position + BLOCK_M, context_len)
    for phase in tl.static_range(2):
        for start in tl.range(0 if phase == 0 else seen_by_all, seen_by_all if phase == 0 else end, BLOCK_N):
            key_ptrs = key_tile_ptr + page * stride_key_block + start % PAGE_SIZE * stride_key_token
            value_ptrs = value_tile_ptr + page * stride_value_block + start % PAGE_SIZE * stride_value_token
            mask_kv = (offs_d < HEAD_DIM)[None, :]
            if phase == 1:
                mask_kv = mask_kv & (start + offs_n < context_len)[:, None]
            key = tl.load(key_ptrs, mask=mask_kv, other=0.0).to(query.dtype)  # of FP8, each value exactly
            scores = tl.dot(query, tl.trans(key), input_precision="ieee")
            if phase == 1:
                positions = context_len - query_len + offs_m
                scores = tl.where(start + offs_n[None, :] <= positions[:, None], scores, float("-inf"))
            # Scaled after the maximum: that takes one fused multiply-add a score, and no product before it.
            new_max = tl.maximum(acc_max, tl.max(scores, axis=1) * scale_log2e)
            weights = tl.exp2(scores * scale_log2e - new_max[:, None])
            rescale = tl.exp2(acc_max - new_max)
            parts = tl.reshape(weights, [BLOCK_M, BLOCK_N // _SUMS, _SUMS])
            acc_sum = acc_sum * rescale[:, None] + tl.sum(parts, axis=1)
            value = tl.load(value_ptrs, mask=mask_kv, other=0.0).to(query.dtype)
            acc_output = acc_output * rescale[:, None]
            acc_output = tl.dot(weights.to(value.dtype), value, acc_output, input_precision="ieee")
            acc_max = new_max
            next_page = tl.minimum((start + BLOCK_N) // PAGE_SIZE, (end - 1) // PAGE_SIZE)
            page = tl.load(block_table_ptr + next_page).to(tl.int64)

    output = acc_output / tl.sum(acc_sum, axis=1)[:, None]
    if value_scales_ptr is not None:
        output *= tl.load(value_scales_ptr + pid_head)
    out_ptrs = out_ptr + rows * stride_out_token + pid_head * stride_out_head + offs_d[None, :] * stride_out_dim
    tl.store(out_ptrs, output.to(out_ptr.dtype.element_ty), mask=mask_query)


@triton.jit
def longest_first(query_lens, context_lens, pid_block, BLOCK_M: tl.constexpr, LEVEL_BITS: tl.constexpr):
    """The sequence of a program, and which of its blocks of BLOCK_M queries: a block before those that see fewer keys.

    Blocks differ up to sixteenfold (a prompt of 1,024 tokens), and the grid ends when its last one does: that has to be
    a short one. A block's level is how many times BLOCK_M tokens are ahead of it. A sequence has one block at each
    level from that of its first block on, so the blocks at a level or above are counted by one sum.
    """
    num_blocks = tl.cdiv(query_lens, BLOCK_M)
    first_levels = (context_lens - query_lens) // BLOCK_M
    ends = first_levels + num_blocks
    level = 0
    for bit in tl.static_range(LEVEL_BITS):
        higher = level + (1 << (LEVEL_BITS - 1 - bit))
        num_above = tl.sum(tl.minimum(tl.maximum(ends - higher, 0), num_blocks), axis=0)
        level = tl.where(num_above > pid_block, higher, level)
    num_above = tl.sum(tl.minimum(tl.maximum(ends - level - 1, 0), num_blocks), axis=0)
    is_there = (first_levels <= level) & (level < ends)
    seq = tl.sum((tl.cumsum(is_there.to(tl.int32), axis=0) <= pid_block - num_above).to(tl.int32), axis=0)
    offs_s = tl.arange(0, query_lens.shape[0])
    return seq, level - tl.sum(tl.where(offs_s == seq, first_levels, 0), axis=0)
