"""A sequence as the device knows it: the numbers that a decode step reads, packed on the host. Called by `seats.py`."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from zeroshot.engine.sequence import Sequence
from zeroshot.types import MAX_LOGIT_BIAS

MAX_BIASES = MAX_LOGIT_BIAS + 36
"""And room for the tokens that `min_tokens` forbids: 16 ends of text and 16 `stop_token_ids`."""

NEVER = 2**31 - 1

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes that all records share."""

    block_size: int
    n_positions: int
    vocab_size: int
    eos_token_id: int

    @property
    def num_places(self) -> int:
        """Where a row's newest token may stand. Behind the last position too, where it is never run: a draft with fewer
        positions than the model draws its last guess for there."""
        return self.n_positions + 1

    @property
    def max_blocks(self) -> int:
        return -(-self.n_positions // self.block_size)

    @property
    def max_entries(self) -> int:
        """Tokens of a sequence whose logits may need adjusting: all that it has, and those with a bias."""
        return self.n_positions + MAX_BIASES


@dataclass(frozen=True, slots=True)
class Record:
    """One row of `DecodeState`, whose arrays have the same numbers in the same order: see there what they mean."""

    longs: Array  # [6] int64: token id, position, draw position, limit, seed, choice
    words: Array  # [4] int32: context length, top_k, number of entries, whether there are penalties
    floats: Array  # [6] float32: temperature, top_p, min_p; penalties for repetition, presence, frequency
    slots: Array  # [num_places] int32
    blocks: Array  # [max_blocks] int32
    entries: Array  # [4, max_entries] int32
    token_mask: Array | None = None  # [vocab_size] bool; None: any token may be drawn

    @property
    def slot(self) -> int:
        """The KV slot of the newest token; -1: none."""
        return int(self.slots[self.longs[1]])

    @property
    def num_entries(self) -> int:
        return int(self.words[2])

    @classmethod
    def empty(cls, layout: Layout, *, token_mask: Array | None = None) -> "Record":
        """A row that computes nothing, keeps nothing and stays where it is: its position is at its limit."""
        return cls(
            longs=np.zeros(6, np.int64),
            words=np.zeros(4, np.int32),
            floats=np.array([0, 1, 0, 1, 0, 0], np.float32),
            slots=np.full(layout.num_places, -1, np.int32),
            blocks=np.zeros(layout.max_blocks, np.int32),
            entries=np.zeros((4, layout.max_entries), np.int32),
            token_mask=token_mask,
        )

    @classmethod
    def of(cls, sequence: Sequence, layout: Layout) -> "Record":
        """The sequence as it is now: its newest token is the next one to run."""
        params, position, limit = sequence.sampling_params, sequence.num_tokens - 1, last_position(sequence)
        record = cls.empty(layout, token_mask=token_mask(sequence))
        record.longs[:] = (
            sequence.token_ids[-1],
            position,
            position + 1,
            limit,
            params.seed,
            sequence.choice_index,
        )
        entries = _entries(sequence, layout)
        if len(entries) > layout.max_entries:
            raise ValueError(f"{len(entries)} tokens with a bias or penalty, room for {layout.max_entries}")
        record.words[:] = (position + 1, min(params.top_k, NEVER), len(entries), params.has_penalties)
        record.floats[:] = (
            params.temperature,
            params.top_p,
            params.min_p,
            params.repetition_penalty,
            params.presence_penalty,
            params.frequency_penalty,
        )
        blocks = np.array(sequence.block_table, np.int32)
        record.slots[:limit] = (blocks[:, None] * layout.block_size + np.arange(layout.block_size)).ravel()[:limit]
        record.blocks[: len(blocks)] = blocks
        record.blocks[len(blocks) :] = blocks[-1]
        if entries:
            token_ids, biases, is_seen, counts = zip(*((t, *entry) for t, entry in entries.items()), strict=True)
            with np.errstate(over="ignore"):  # a bias beyond float32 is inf there
                bias_bits = np.array(biases, np.float32).view(np.int32)
            record.entries[:, : len(entries)] = (token_ids, bias_bits, is_seen, counts)
        return record


def last_position(sequence: Sequence) -> int:
    """Positions from here on are never run: what would be drawn there is beyond max_tokens."""
    return sequence.max_num_tokens - 1


def token_mask(sequence: Sequence) -> Array | None:
    """[vocab_size] bool: the tokens that a grammar allows next. None if there is no grammar."""
    return None if sequence.guide is None else sequence.guide.mask


def holds_until(sequence: Sequence) -> int:
    """The first position that needs a new record, because the host has to decide something there.

    End of text and stop tokens are forbidden until there are `min_tokens`. A token mask is for one token: the next one
    needs another.
    """
    if token_mask(sequence) is not None:
        return sequence.num_tokens
    allowed_from = sequence.num_prompt_tokens + sequence.sampling_params.min_tokens - 1
    return allowed_from if sequence.num_tokens - 1 < allowed_from else NEVER


def _entries(sequence: Sequence, layout: Layout) -> dict[int, tuple[float, bool, int]]:
    """Token id -> bias, whether prompt or output have it, how often the output has it."""
    params = sequence.sampling_params
    biases = dict(params.logit_bias)
    if sequence.num_output_tokens < params.min_tokens:
        ends = (layout.eos_token_id, *params.stop_token_ids)
        biases |= {token_id: -np.inf for token_id in ends if 0 <= token_id < layout.vocab_size}
    entries = {token_id: (bias, False, 0) for token_id, bias in biases.items()}
    if params.has_penalties:
        for index, token_id in enumerate(sequence.token_ids):
            bias, _, count = entries.get(token_id, (0.0, False, 0))
            entries[token_id] = (bias, True, count + (index >= sequence.num_prompt_tokens))
    return entries
