# ruff: noqa: N803
"""Logit bias and penalties, applied in place to the entries of the logits that have any.

    z' = z + bias
    z'' = z' * r if z' < 0 else z' / r          if the token was seen, r the row's repetition penalty (CTRL)
    z''' = z'' - (presence + frequency * count)  if count > 0, count how often the output has the token (OpenAI)

A row has a few hundred such tokens of 50,257, so they are listed, and a thread takes one. No entry may be listed twice:
then no two threads touch the same logit, and order does not matter. Unused places of a list of fixed size (a captured
graph's) name a row outside the logits.
"""

import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_rows

_LAUNCH = {"BLOCK_ENTRIES": 256, "num_warps": 4}  # scattered 4-byte accesses: parallelism is all there is to have

_FLOAT32_MAX = tl.constexpr(3.4028234663852886e38)


def logit_adjustment(
    logits: Tensor,
    rows: Tensor,
    token_ids: Tensor,
    biases: Tensor,
    is_seen: Tensor,
    output_counts: Tensor,
    repetition_penalties: Tensor,
    presence_penalties: Tensor,
    frequency_penalties: Tensor,
) -> None:
    """In place on logits [num_rows, vocab_size] float32, at the entries (rows[i], token_ids[i]), each named once.

    rows, token_ids: [num_entries] int32, an entry outside the logits is skipped; biases: float32, -inf forbids the
    token; is_seen: bool, whether prompt or output have the token; output_counts: int32, how often the output has it;
    the penalties: [num_rows] float32. Results are at most the largest float32.
    """
    num_rows, vocab_size = logits.shape
    num_entries = len(rows)
    check_rows(logits=logits)
    entries = (token_ids, biases, is_seen, output_counts)
    if any(len(tensor) != num_entries for tensor in entries):
        raise ValueError(f"{num_entries} rows of entries, {[len(tensor) for tensor in entries]} of what they have")
    penalties = (repetition_penalties, presence_penalties, frequency_penalties)
    if any(len(tensor) != num_rows for tensor in penalties):
        raise ValueError(f"{num_rows} rows of logits, penalties for {[len(tensor) for tensor in penalties]}")
    if num_entries == 0:
        return
    block_entries = _LAUNCH["BLOCK_ENTRIES"]
    logit_adjustment_kernel[(triton.cdiv(num_entries, block_entries),)](
        logits,
        rows,
        *entries,
        *penalties,
        num_entries,
        num_rows,
        vocab_size,
        logits.stride(0),
        BLOCK_ENTRIES=block_entries,
        num_warps=_LAUNCH["num_warps"],
    )


@triton.jit(do_not_specialize=["num_entries", "num_rows"])  # or a first batch of 1 or 16 would wait for a compiler
def logit_adjustment_kernel(
    logits_ptr,  # [num_rows, vocab_size]
    rows_ptr,  # [num_entries]
    token_ids_ptr,  # [num_entries]
    biases_ptr,  # [num_entries]
    is_seen_ptr,  # [num_entries]
    output_counts_ptr,  # [num_entries]
    repetition_penalties_ptr,  # [num_rows]
    presence_penalties_ptr,  # [num_rows]
    frequency_penalties_ptr,  # [num_rows]
    num_entries,
    num_rows,
    vocab_size,
    stride_logits_row,
    BLOCK_ENTRIES: tl.constexpr,
):
    offs = tl.program_id(0).to(tl.int64) * BLOCK_ENTRIES + tl.arange(0, BLOCK_ENTRIES)
    mask = offs < num_entries
    rows = tl.load(rows_ptr + offs, mask=mask, other=-1).to(tl.int64)
    token_ids = tl.load(token_ids_ptr + offs, mask=mask, other=0)
    mask = (rows >= 0) & (rows < num_rows) & (token_ids >= 0) & (token_ids < vocab_size)
    logits_ptrs = logits_ptr + rows * stride_logits_row + token_ids
    values = tl.load(logits_ptrs, mask=mask, other=0.0) + tl.load(biases_ptr + offs, mask=mask, other=0.0)
    penalty = tl.load(repetition_penalties_ptr + rows, mask=mask, other=1.0)
    is_seen = tl.load(is_seen_ptr + offs, mask=mask, other=0) != 0
    penalised = tl.where(values < 0, values * penalty, tl.div_rn(values, penalty))
    values = tl.where(is_seen, penalised, values)
    counts = tl.load(output_counts_ptr + offs, mask=mask, other=0)
    presence = tl.load(presence_penalties_ptr + rows, mask=mask, other=0.0)
    frequency = tl.load(frequency_penalties_ptr + rows, mask=mask, other=0.0)
    values = tl.where(counts > 0, values - (presence + frequency * counts.to(tl.float32)), values)
    values = tl.where(values > _FLOAT32_MAX, _FLOAT32_MAX, values)  # not minimum: a NaN stays one
    tl.store(logits_ptrs, values, mask=mask)
