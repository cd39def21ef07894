# ruff: noqa: N803
"""The end of a decode step: what was drawn becomes the newest token of its row, and the row moves on by one position.

A few bytes a row, but as PyTorch ops seven launches, each with a boundary in the graph that costs as much as a third of
a layer of 124M. A thread takes a row; rows share nothing.
"""

import triton
import triton.language as tl
from torch import Tensor

from zeroshot_kernels.checks import check_rows

_BLOCK_ROWS = 128


def advance(
    token_ids: Tensor,
    is_valid: Tensor,
    rows: Tensor | None,
    limits: Tensor,
    newest: Tensor,
    positions: Tensor,
    draw_positions: Tensor,
    context_lens: Tensor,
    slot_table: Tensor,
    slots: Tensor,
    drawn: Tensor,
    *,
    use_pdl: bool = False,
) -> None:
    """What `reference.py` says, in one launch. Raises ValueError for lengths that don't go together.

    `use_pdl` (`gemv_kernel.py`) needs compute capability 9.0, and `rows` and the state to be older than this step.
    """
    num_drawn = len(token_ids)
    if len(is_valid) != num_drawn or (num_drawn > len(limits) if rows is None else len(rows) != num_drawn):
        raise ValueError(
            f"{num_drawn} tokens, is_valid for {len(is_valid)}, rows: {len(limits) if rows is None else len(rows)}"
        )
    state = (limits, newest, positions, draw_positions, context_lens, slot_table, slots, drawn)
    if any(len(tensor) != len(limits) for tensor in state):
        raise ValueError(f"a state of {[len(tensor) for tensor in state]} rows")
    check_rows(slot_table=slot_table)
    advance_kernel[(triton.cdiv(num_drawn, _BLOCK_ROWS),)](
        token_ids,
        is_valid,
        rows,
        *state,
        num_drawn,
        slot_table.stride(0),
        BLOCK_ROWS=_BLOCK_ROWS,
        USE_PDL=use_pdl,
        num_warps=_BLOCK_ROWS // 32,
        **({"launch_pdl": True} if use_pdl else {}),  # the interpreter knows no such option
    )


@triton.jit(do_not_specialize=["num_drawn"])  # or a first batch of 1 or 16 would wait for a compiler
def advance_kernel(
    token_ids_ptr,  # [num_drawn]
    is_valid_ptr,  # [num_drawn]
    rows_ptr,  # [num_drawn] or None
    limits_ptr,  # [num_rows], and so are those below
    newest_ptr,
    positions_ptr,
    draw_positions_ptr,
    context_lens_ptr,
    slot_table_ptr,  # [num_rows, num_places]
    slots_ptr,
    drawn_ptr,
    num_drawn,
    stride_slot_table_row,
    BLOCK_ROWS: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    if USE_PDL:
        tl.extra.cuda.gdc_launch_dependents()
    offs = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    mask = offs < num_drawn
    rows = offs
    if rows_ptr is not None:
        rows = tl.load(rows_ptr + offs, mask=mask, other=0)
    # Written by the step before, which was complete before any kernel of this one but the first had started.
    positions = tl.load(positions_ptr + rows, mask=mask, other=0, cache_modifier=".cg")
    is_running = positions < tl.load(limits_ptr + rows, mask=mask, other=0)
    draw_positions = tl.load(draw_positions_ptr + rows, mask=mask, other=0, cache_modifier=".cg")
    context_lens = tl.load(context_lens_ptr + rows, mask=mask, other=0, cache_modifier=".cg")
    positions += is_running.to(tl.int64)
    draw_positions += is_running.to(tl.int64)
    context_lens += is_running.to(tl.int32)
    slots = tl.load(slot_table_ptr + rows * stride_slot_table_row + positions, mask=mask, other=-1)
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
    token_ids = tl.load(token_ids_ptr + offs, mask=mask, other=0, cache_modifier=".cg")
    is_valid = tl.load(is_valid_ptr + offs, mask=mask, other=0, cache_modifier=".cg") != 0
    tl.store(drawn_ptr + rows, tl.where(is_valid, token_ids, -1), mask=mask)
    tl.store(newest_ptr + rows, token_ids, mask=mask)
    tl.store(positions_ptr + rows, positions, mask=mask)
    tl.store(draw_positions_ptr + rows, draw_positions, mask=mask)
    tl.store(context_lens_ptr + rows, context_lens, mask=mask)
    tl.store(slots_ptr + rows, slots, mask=mask)
