"""The end of a decode step: reference and kernel against what a list of rows would do."""

import pytest
import torch

from tests.kernels.buffers import GuardedBuffers, kernel_of
from zeroshot_kernels.advance.reference import advance_reference

N_POSITIONS = 6


@pytest.fixture(params=["reference", "kernel"])
def advance(request):
    return advance_reference if request.param == "reference" else kernel_of("advance").advance


def state_of(num_rows):
    """Some rows at their limits, some empty ones, one that a token takes there."""
    rng = torch.Generator().manual_seed(num_rows)
    limits = torch.randint(0, N_POSITIONS, (num_rows,), generator=rng)
    positions = (limits - torch.randint(0, 3, (num_rows,), generator=rng)).clamp(min=0)
    return {
        "limits": limits,
        "newest": torch.full((num_rows,), 5),
        "positions": positions,
        "draw_positions": positions + 1,
        "context_lens": (positions + 1).int(),
        "slot_table": torch.randint(-1, 99, (num_rows, N_POSITIONS), generator=rng).int(),
        "slots": torch.full((num_rows,), -7, dtype=torch.int32),
        "drawn": torch.full((num_rows,), -7),
    }


def advanced(state, token_ids, is_valid, rows):
    expected = {name: tensor.clone() for name, tensor in state.items()}
    for token_id, ok, row in zip(token_ids.tolist(), is_valid.tolist(), rows, strict=True):
        expected["drawn"][row] = token_id if ok else -1
        expected["newest"][row] = token_id
        if state["positions"][row] < state["limits"][row]:
            for name in ("positions", "draw_positions", "context_lens"):
                expected[name][row] += 1
        expected["slots"][row] = state["slot_table"][row, expected["positions"][row]]
    return expected


@pytest.mark.parametrize(
    ("num_rows", "rows"), [(1, None), (5, None), (300, None), (7, 3), (5, [4, 0, 2]), (300, list(range(299, 100, -1)))]
)
def test_rows_drawn_for_move_on_and_others_stay(advance, num_rows, rows):
    state = state_of(num_rows)
    numbers = list(range(num_rows if rows is None else rows)) if not isinstance(rows, list) else rows
    token_ids = torch.arange(len(numbers)) + 1000
    is_valid = torch.arange(len(numbers)) % 3 != 1
    expected = advanced(state, token_ids, is_valid, numbers)
    buffers = GuardedBuffers()
    found = {name: buffers.copy(tensor) for name, tensor in state.items()}
    advance(token_ids, is_valid, torch.tensor(numbers) if isinstance(rows, list) else None, *found.values())
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name
    buffers.check()


def test_what_does_not_fit_is_refused_with_both_values():
    advance = kernel_of("advance").advance
    state = state_of(4)
    tokens, valid = torch.zeros(5, dtype=torch.int64), torch.ones(5, dtype=torch.bool)
    with pytest.raises(ValueError, match="5 tokens, is_valid for 5, rows: 4"):
        advance(tokens, valid, None, *state.values())
    with pytest.raises(ValueError, match="3 tokens, is_valid for 3, rows: 2"):
        advance(tokens[:3], valid[:3], torch.tensor([0, 1]), *state.values())
    with pytest.raises(ValueError, match="3 tokens, is_valid for 5"):
        advance(tokens[:3], valid, None, *state.values())
    with pytest.raises(ValueError, match="a state of"):
        advance(tokens[:3], valid[:3], None, *(state | {"drawn": torch.zeros(3)}).values())
    with pytest.raises(ValueError, match="stride 1"):
        advance(
            tokens[:3], valid[:3], None, *(state | {"slot_table": state["slot_table"].t().contiguous().t()}).values()
        )
