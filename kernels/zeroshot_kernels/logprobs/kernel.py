# ruff: noqa: N803
"""Log-probabilities of given tokens from hidden states, for scoring prompts: logits live in registers only.

    z[t, v] = hidden[t] . lm_head[v]
    logprob[t] = z[t, target[t]] - log(sum_v exp(z[t, v])),    rank[t] = 1 + #{v: z[t, v] > z[t, target[t]]}

A prompt of 1,024 tokens has 206 MB of logits in float32; what is needed of them is three numbers a row. As in cut
cross-entropy (Wijmans et al. 2024) each program multiplies a block of rows with GROUP_SIZE vocabulary entries, tile by
tile, and keeps an online maximum and sum of exponentials, and how many logits were larger than the target's. The groups
are merged in the order of the vocabulary. The target's logit is computed first, by itself, and stands in for its
entry of the product: so a token never outranks itself by a rounding, and no log-probability is above 0.

hidden, lm_head: [num_tokens, n_embd], [vocab_size, n_embd], fp32, fp16 or bf16; logits and statistics are float32.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_lm_head

GROUP_SIZE = 512
"""Vocabulary entries a program walks. GPT-2's has 99 groups: 8 blocks of 128 rows give 792 programs, 6 an SM."""

_LAUNCH = {
    # bytes an element: BLOCK_M, BLOCK_V, BLOCK_K, warps, stages
    2: (128, 128, 64, 8, 3),  # 96 KB of shared memory: two programs an SM
    4: (32, 64, 32, 4, 3),  # without tensor cores operands live in registers: small tiles
}


class LogprobsWorkspace(NamedTuple):
    target_logits: Tensor  # [num_tokens] float32
    partial_max: Tensor  # [num_groups, num_tokens] float32
    partial_sum: Tensor  # [num_groups, num_tokens] float32
    partial_rank: Tensor  # [num_groups, num_tokens] int32

    @classmethod
    def allocate(cls, num_tokens: int, vocab_size: int, device: torch.device) -> "LogprobsWorkspace":
        shape = (triton.cdiv(vocab_size, GROUP_SIZE), num_tokens)
        return cls(
            torch.empty(num_tokens, dtype=torch.float32, device=device),
            torch.empty(shape, dtype=torch.float32, device=device),
            torch.empty(shape, dtype=torch.float32, device=device),
            torch.empty(shape, dtype=torch.int32, device=device),
        )


def logprobs(
    hidden: Tensor,
    lm_head: Tensor,
    target_token_ids: Tensor,
    *,
    out: tuple[Tensor, Tensor] | None = None,
    workspace: LogprobsWorkspace | None = None,
) -> tuple[Tensor, Tensor]:
    """log_softmax(hidden @ lm_head^T)[target] of each row, and the target's rank. Returns `out`: float32 and int32.

    hidden: [num_tokens, n_embd] and lm_head: [vocab_size, n_embd], last axis contiguous; target_token_ids: [num_tokens]
    int32 or int64, each within the vocabulary. A row whose logits have NaN or inf gets NaN.
    """
    num_tokens, n_embd = hidden.shape
    vocab_size = len(lm_head)
    check_lm_head(hidden, lm_head)
    if len(target_token_ids) != num_tokens:
        raise ValueError(f"{num_tokens} rows, {len(target_token_ids)} targets")
    if workspace is None:
        workspace = LogprobsWorkspace.allocate(num_tokens, vocab_size, hidden.device)
    num_groups = triton.cdiv(vocab_size, GROUP_SIZE)
    if workspace.partial_max.shape != (num_groups, num_tokens):
        raise ValueError(f"workspace for {tuple(workspace.partial_max.shape)}, needs {(num_groups, num_tokens)}")
    if out is None:
        out = torch.empty_like(workspace.target_logits), torch.empty_like(workspace.partial_rank[0])
    sizes = (num_tokens, vocab_size, hidden.stride(0), lm_head.stride(0))
    target_logits_kernel[(num_tokens,)](
        hidden,
        lm_head,
        target_token_ids,
        workspace.target_logits,
        hidden.stride(0),
        lm_head.stride(0),
        N_EMBD=n_embd,
        BLOCK_E=triton.next_power_of_2(n_embd),
        num_warps=4,
    )
    block_m, block_v, block_k, num_warps, num_stages = _LAUNCH[hidden.element_size()]
    logprobs_kernel[triton.cdiv(num_tokens, block_m), num_groups](
        hidden,
        lm_head,
        target_token_ids,
        *workspace,
        *sizes,
        N_EMBD=n_embd,
        GROUP_SIZE=GROUP_SIZE,
        BLOCK_M=block_m,
        BLOCK_V=block_v,
        BLOCK_K=block_k,
        num_warps=num_warps,
        num_stages=num_stages,
    )
    merge_logprobs_kernel[(triton.cdiv(num_tokens, 128),)](*workspace, *out, num_tokens, num_groups, BLOCK_M=128)
    return out


@triton.jit
def target_logits_kernel(
    hidden_ptr,  # [num_tokens, N_EMBD]
    lm_head_ptr,  # [vocab_size, N_EMBD]
    target_token_ids_ptr,  # [num_tokens]
    target_logits_ptr,  # [num_tokens]
    stride_hidden_token,
    stride_lm_head_token,
    N_EMBD: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    pid_token = tl.program_id(0).to(tl.int64)
    target = tl.load(target_token_ids_ptr + pid_token).to(tl.int64)
    offs_e = tl.arange(0, BLOCK_E)
    mask_e = offs_e < N_EMBD
    hidden = tl.load(hidden_ptr + pid_token * stride_hidden_token + offs_e, mask=mask_e, other=0.0).to(tl.float32)
    weight = tl.load(lm_head_ptr + target * stride_lm_head_token + offs_e, mask=mask_e, other=0.0).to(tl.float32)
    tl.store(target_logits_ptr + pid_token, tl.sum(hidden * weight, axis=0))


@triton.jit(do_not_specialize=["num_tokens"])  # or a first batch of 1 or 16 would wait for a compiler
def logprobs_kernel(
    hidden_ptr,  # [num_tokens, N_EMBD]
    lm_head_ptr,  # [vocab_size, N_EMBD]
    target_token_ids_ptr,  # [num_tokens]
    target_logits_ptr,  # [num_tokens]
    partial_max_ptr,  # [num_groups, num_tokens]
    partial_sum_ptr,  # [num_groups, num_tokens]
    partial_rank_ptr,  # [num_groups, num_tokens]
    num_tokens,
    vocab_size,
    stride_hidden_token,
    stride_lm_head_token,
    N_EMBD: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # Row blocks are the fastest axis: the blocks that multiply the same group run side by side and share it in L2.
    pid_m = tl.program_id(0).to(tl.int64)
    pid_group = tl.program_id(1).to(tl.int64)
    offs_m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    mask_m = offs_m < num_tokens
    targets = tl.load(target_token_ids_ptr + offs_m, mask=mask_m, other=0)
    target_logits = tl.load(target_logits_ptr + offs_m, mask=mask_m, other=0.0)
    # The first maximum is finite, so that logits of -inf give no inf - inf.
    acc_max = tl.full([BLOCK_M], -1e38, tl.float32)
    acc_sum = tl.zeros([BLOCK_M], tl.float32)
    rank = tl.zeros([BLOCK_M], tl.int32)
    for start in range(0, GROUP_SIZE, BLOCK_V):
        offs_v = pid_group * GROUP_SIZE + start + tl.arange(0, BLOCK_V)
        logits = lm_head_tile(
            hidden_ptr,
            lm_head_ptr,
            offs_m,
            offs_v,
            num_tokens,
            vocab_size,
            stride_hidden_token,
            stride_lm_head_token,
            N_EMBD,
            BLOCK_M,
            BLOCK_V,
            BLOCK_K,
        )
        logits = tl.where(offs_v[None, :] == targets[:, None], target_logits[:, None], logits)
        logits = tl.where(tl.abs(logits) < float("inf"), logits, float("nan"))  # -inf is an overflow as well
        logits = tl.where(offs_v[None, :] < vocab_size, logits, float("-inf"))
        rank += tl.sum((logits > target_logits[:, None]).to(tl.int32), axis=1)
        new_max = tl.maximum(acc_max, tl.max(logits, axis=1))
        acc_sum = acc_sum * tl.exp(acc_max - new_max) + tl.sum(tl.exp(logits - new_max[:, None]), axis=1)
        acc_max = new_max
    offs_partial = pid_group * num_tokens + offs_m
    tl.store(partial_max_ptr + offs_partial, acc_max, mask=mask_m)
    tl.store(partial_sum_ptr + offs_partial, acc_sum, mask=mask_m)
    tl.store(partial_rank_ptr + offs_partial, rank, mask=mask_m)


@triton.jit(do_not_specialize=["num_tokens"])  # or a first batch of 1 or 16 would wait for a compiler
def merge_logprobs_kernel(
    target_logits_ptr,  # [num_tokens]
    partial_max_ptr,  # [num_groups, num_tokens]
    partial_sum_ptr,  # [num_groups, num_tokens]
    partial_rank_ptr,  # [num_groups, num_tokens]
    logprobs_ptr,  # [num_tokens]
    ranks_ptr,  # [num_tokens]
    num_tokens,
    num_groups,
    BLOCK_M: tl.constexpr,
):
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    mask_m = offs_m < num_tokens
    acc_max = tl.full([BLOCK_M], -1e38, tl.float32)
    acc_sum = tl.zeros([BLOCK_M], tl.float32)
    rank = tl.full([BLOCK_M], 1, tl.int32)
    offs_partial = offs_m
    for _ in tl.range(0, num_groups, num_stages=4):
        group_max = tl.load(partial_max_ptr + offs_partial, mask=mask_m, other=0.0)
        group_sum = tl.load(partial_sum_ptr + offs_partial, mask=mask_m, other=1.0)
        rank += tl.load(partial_rank_ptr + offs_partial, mask=mask_m, other=0)
        new_max = tl.maximum(acc_max, group_max)
        acc_sum = acc_sum * tl.exp(acc_max - new_max) + group_sum * tl.exp(group_max - new_max)
        acc_max = new_max
        offs_partial += num_tokens
    target_logits = tl.load(target_logits_ptr + offs_m, mask=mask_m, other=0.0)
    tl.store(logprobs_ptr + offs_m, target_logits - acc_max - tl.log(acc_sum), mask=mask_m)
    tl.store(ranks_ptr + offs_m, rank, mask=mask_m)


@triton.jit
def lm_head_tile(
    hidden_ptr,  # [num_rows, N_EMBD]
    lm_head_ptr,  # [vocab_size, N_EMBD]
    offs_m,  # [BLOCK_M]
    offs_v,  # [BLOCK_V]
    num_rows,
    vocab_size,
    stride_hidden_row,
    stride_lm_head_token,
    N_EMBD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """hidden[offs_m] @ lm_head[offs_v]^T: [BLOCK_M, BLOCK_V] float32, 0 outside the matrix. The order of the sum over
    n_embd depends on BLOCK_K and on the instruction's K alone: a row's logits are the same bits in any batch."""
    hidden_ptrs = hidden_ptr + offs_m.to(tl.int64)[:, None] * stride_hidden_row
    lm_head_ptrs = lm_head_ptr + offs_v.to(tl.int64)[:, None] * stride_lm_head_token
    mask_m = (offs_m < num_rows)[:, None]
    mask_v = (offs_v < vocab_size)[:, None]
    acc_logits = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)
    for start in range(0, N_EMBD, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)[None, :]
        mask_k = offs_k < N_EMBD
        hidden = tl.load(hidden_ptrs + offs_k, mask=mask_m & mask_k, other=0.0, cache_modifier=".cg")
        weight = tl.load(lm_head_ptrs + offs_k, mask=mask_v & mask_k, other=0.0)
        acc_logits = tl.dot(hidden, tl.trans(weight), acc_logits, input_precision="ieee")
    return acc_logits
