"""Which sequence has which row of `DecodeState`, and how far the device has got with it. Called by `cuda_runner.py`.

A row is a copy of what the host knows, and can be written again at any time. So whenever the two disagree (a step was
given up, the host has decided something) the row is written, and nothing needs undoing.
"""

from dataclasses import dataclass

from zeroshot.engine.decode_record import Layout, Record, holds_until, last_position
from zeroshot.engine.decode_state import DecodeState
from zeroshot.engine.sequence import Sequence


@dataclass(slots=True)
class Seat:
    row: int
    position: int
    """Where the device's newest token stands, after all steps launched so far."""
    limit: int
    holds_until: int
    """The first position at which the row has to be written again."""

    @property
    def has_more(self) -> bool:
        return self.position < self.limit


class Seats:
    def __init__(self, state: DecodeState, num_rows: int, layout: Layout) -> None:
        self._state, self._layout = state, layout
        self._free = list(range(num_rows))  # sorted: the lowest row first, so that few rows are in use up to the last
        self._taken: dict[Sequence, Seat] = {}
        self._unwritten: dict[int, Record] = {}

    def __getitem__(self, sequence: Sequence) -> Seat:
        return self._taken[sequence]

    @property
    def num_rows_in_use(self) -> int:
        """Steps run over this many rows, from row 0 on."""
        return 1 + max((seat.row for seat in self._taken.values()), default=-1)

    def keep_only(self, sequences: set[Sequence]) -> None:
        """Free the rows of all others: they have ended, or will run again from what the host knows."""
        gone = [sequence for sequence in self._taken if sequence not in sequences]
        rows = [self._taken.pop(sequence).row for sequence in gone]
        self._free = sorted(self._free + rows)
        self._unwritten |= dict.fromkeys(rows, Record.empty(self._layout))

    def give(self, sequences: list[Sequence]) -> None:
        """Give each a row that matches what the host knows: the newest token is the next to run."""
        for sequence in sequences:
            seat, position = self._taken.get(sequence), sequence.num_tokens - 1
            if seat is not None and seat.position == position < seat.holds_until:
                continue
            record = Record.of(sequence, self._layout)  # may raise: before anything is taken
            row = self._free.pop(0) if seat is None else seat.row
            self._taken[sequence] = Seat(row, position, last_position(sequence), holds_until(sequence))
            self._unwritten[row] = record

    def write(self) -> None:
        """Bring the device's rows up to date, all at once: before anything is launched that reads them."""
        self._state.write(list(self._unwritten), list(self._unwritten.values()))
        self._unwritten.clear()

    def advance(self, sequences: list[Sequence], num_steps: int) -> None:
        """Note what `num_steps` steps do to the rows on the device."""
        for sequence in sequences:
            seat = self._taken[sequence]
            seat.position = max(seat.position, min(seat.position + num_steps, seat.limit))
