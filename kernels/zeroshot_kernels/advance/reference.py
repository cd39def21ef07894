"""The end of a decode step in PyTorch: the oracle for the kernel, and what a CPU's double of the runner runs."""

import torch
from torch import Tensor


def advance_reference(
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
) -> None:
    """In place: token_ids [n] int64 were drawn for `rows` [n] int64, each named once, or for the first n rows.

    drawn: the token, or -1 where is_valid [n] bool says no; newest: the token; where the position is below its limit,
    positions, draw_positions and context_lens grow by one; slots: slot_table [num_rows, num_places] int32 at the
    position reached, which is below num_places. The rest: [num_rows], context_lens and slots int32, the others int64.
    """
    if rows is None:
        rows = torch.arange(len(token_ids), device=token_ids.device)
    is_running = (positions[rows] < limits[rows]).int()
    drawn[rows] = torch.where(is_valid, token_ids, -1)
    newest[rows] = token_ids
    positions[rows] += is_running
    draw_positions[rows] += is_running
    context_lens[rows] += is_running
    slots[rows] = slot_table[rows, positions[rows]]
