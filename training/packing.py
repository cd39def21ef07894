"""Documents -> rows of one length, with `<|endoftext|>` after each document.

Two row lengths, because attention and memory traffic are wasted on long rows of short documents: sentences pack into
rows of 128 tokens, prose and abstracts into rows of the full context (1024), which also trains every position
embedding. A row always begins with the beginning of a document, as a prompt does when it is served; a document is
never cut across two rows unless it is longer than one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

OPEN_ROWS = 64  # best fit over 64 open rows left under five per cent of padding on the real documents


@dataclass(frozen=True, slots=True)
class Rows:
    """Packed rows: token ids and loss weights; the weight at `t` is for predicting the token at `t`."""

    tokens: npt.NDArray[np.uint16]  # [num_rows, row_length]
    weights: npt.NDArray[np.uint8]  # [num_rows, row_length]

    @property
    def length(self) -> int:
        return int(self.tokens.shape[1])


@dataclass(slots=True)
class _OpenRow:
    room: int
    documents: list[int] = field(default_factory=list)


def assign(lengths: Sequence[int], row_length: int) -> Iterator[list[int]]:
    """Best fit: each document goes to the open row it fills most; the fullest row is closed when none has room."""
    open_rows: list[_OpenRow] = []
    for document, length in enumerate(lengths):
        fitting = [row for row in open_rows if row.room >= length]
        if fitting:
            row = min(fitting, key=lambda candidate: candidate.room)
        else:
            if len(open_rows) == OPEN_ROWS:
                fullest = min(open_rows, key=lambda candidate: candidate.room)
                open_rows.remove(fullest)
                yield fullest.documents
            row = _OpenRow(row_length)
            open_rows.append(row)
        row.documents.append(document)
        row.room -= length
    for row in open_rows:
        yield row.documents


def pack(
    documents: Sequence[tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]], row_length: int, pad_id: int
) -> Rows:
    """Pack (tokens, weights) documents, each at most `row_length` tokens, into rows; padding has weight 0."""
    plan = list(assign([len(tokens) for tokens, _ in documents], row_length))
    rows = np.full((len(plan), row_length), pad_id, dtype=np.uint16)
    weights = np.zeros((len(plan), row_length), dtype=np.uint8)
    for row, members in enumerate(plan):
        start = 0
        for member in members:
            tokens, token_weights = documents[member]
            rows[row, start : start + len(tokens)] = tokens
            weights[row, start : start + len(tokens)] = token_weights
            start += len(tokens)
    return Rows(rows, weights)
