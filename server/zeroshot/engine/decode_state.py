"""The state of all decoding sequences in device memory: a row each, fixed addresses, kept up to date by steps alone.

A row is written when a sequence takes its seat; after that every step advances it on the device. So in steady state
nothing is sent to the device at all, and a captured graph finds everything where it was.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroshot.engine.decode_record import Layout, Record
from zeroshot.engine.device import Device
from zeroshot.types import MAX_LOGPROBS

Rows = slice | Tensor
"""The first n rows, or some rows by their numbers (int64)."""


MAX_STEPS = 8
"""Decode steps that are launched at once when nobody waits. The host reads and sends their tokens together."""

_ALIGNED_ROWS = 16
"""Each of the arrays in one tensor begins at a multiple of 16 bytes: kernels are compiled for that."""


class DecodeState:
    def __init__(self, num_rows: int, layout: Layout, device: Device) -> None:
        self._device = device
        width = -(-num_rows // _ALIGNED_ROWS) * _ALIGNED_ROWS

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device.torch_device)

        longs = zeros(6, width, dtype=torch.int64)[:, :num_rows]
        self._longs = longs
        self.token_ids = longs[0]  # the newest token: the next one to run
        self.positions = longs[1]  # where it stands
        self.draw_positions = longs[2]  # where the token drawn after it will stand
        self.limits = longs[3]  # a row at its limit stays as it is
        self.seeds, self.choices = longs[4], longs[5]
        self._words = words = zeros(4, width, dtype=torch.int32)[:, :num_rows]
        self.context_lens = words[0]  # tokens that attention sees: position + 1, or 0 for an empty row
        self.top_ks = words[1]
        self.num_entries = words[2]
        self.has_penalties = words[3]
        self._floats = floats = zeros(6, width, dtype=torch.float32)[:, :num_rows]
        self.temperatures, self.top_ps, self.min_ps = floats[0], floats[1], floats[2]
        self.repetition_penalties, self.presence_penalties, self.frequency_penalties = floats[3], floats[4], floats[5]
        self.slot_table = zeros(num_rows, layout.num_places, dtype=torch.int32)  # position -> KV slot; -1: none
        self.slots = zeros(num_rows, dtype=torch.int32)  # of the newest tokens; -1 at a limit and for an empty row
        self.block_tables = zeros(num_rows, layout.max_blocks, dtype=torch.int32)
        # Tokens whose logits have a bias or a penalty: id, bias (float32 bits), is it in prompt or output, how often in
        # the output.
        self.entries = zeros(4, num_rows, layout.max_entries, dtype=torch.int32)
        # May the row draw this token? Read by steps of the kind MASKED only.
        self.token_mask = zeros(num_rows, layout.vocab_size, dtype=torch.bool)
        # What steps leave for the host, each of those recorded together in a place of its own. -1 in `drawn`: the row's
        # logits were not finite.
        self.drawn = zeros(MAX_STEPS, width, dtype=torch.int64)[:, :num_rows]
        # The drawn token's, then the best; the drawn one's rank, then ids.
        self.logprobs = zeros(MAX_STEPS, num_rows, 1 + MAX_LOGPROBS, dtype=torch.float32)
        self.logprob_ids = zeros(MAX_STEPS, num_rows, 1 + MAX_LOGPROBS, dtype=torch.int64)
        self.write(list(range(num_rows)), [Record.empty(layout)] * num_rows)

    def advanced(self, step: int) -> tuple[Tensor, ...]:
        """What the op `advance` reads and writes, in its order, in this step of those recorded together."""
        return (
            self.limits,
            self.token_ids,
            self.positions,
            self.draw_positions,
            self.context_lens,
            self.slot_table,
            self.slots,
            self.drawn[step],
        )

    def write(self, rows: list[int], records: list[Record]) -> None:
        """Each record to its row, for the steps launched after this."""
        if not rows:
            return
        at = self._device.upload(np.array(rows, np.int64))

        def upload(name: str, axis: int) -> Tensor:
            stacked: np.ndarray[Any, Any] = np.stack([getattr(record, name) for record in records], axis)
            return self._device.upload(stacked)

        self._longs.index_copy_(1, at, upload("longs", 1))
        self._words.index_copy_(1, at, upload("words", 1))
        self._floats.index_copy_(1, at, upload("floats", 1))
        self.slot_table.index_copy_(0, at, upload("slots", 0))
        slots = np.array([record.slot for record in records], np.int32)
        self.slots.index_copy_(0, at, self._device.upload(slots))
        self.block_tables.index_copy_(0, at, upload("blocks", 0))
        self.token_mask.index_fill_(0, at, True)
        for row, record in zip(rows, records, strict=True):
            if record.token_mask is not None:
                self.token_mask[row] = self._device.upload(record.token_mask)
        adjusted = [index for index, record in enumerate(records) if record.num_entries]
        if adjusted:
            rows, records = [rows[index] for index in adjusted], [records[index] for index in adjusted]
            self.entries.index_copy_(1, self._device.upload(np.array(rows, np.int64)), upload("entries", 1))
