"""Step number -> rows. A pure function of the seed and the step, so a resumed run sees what the first would have seen.

Every step takes some short rows and some long ones, in the proportion in which they exist: each gradient has seen the
whole mixture.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.packing import Rows
from training.presets import Preset

N_POSITIONS = 1024


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one length: tokens and weights [rows, length], first_position [rows, 1]."""

    tokens: Tensor
    weights: Tensor
    first_position: Tensor


def load_rows(path: Path) -> Rows:
    """Raises FileNotFoundError, naming the command that makes the file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `python -m training.prepare --data DIR` first")
    with np.load(path) as saved:
        return Rows(saved["tokens"], saved["weights"])


def row_numbers(num_rows: int, batch_rows: int, step: int, *, seed: int) -> npt.NDArray[np.int64]:
    """The rows of one step: all rows in a random order, then all again in another order, and so on: [batch_rows]."""
    positions = np.arange(step * batch_rows, (step + 1) * batch_rows)
    numbers = np.empty(batch_rows, dtype=np.int64)
    for epoch in np.unique(positions // num_rows):
        in_epoch = positions // num_rows == epoch
        numbers[in_epoch] = _order(num_rows, seed, int(epoch))[positions[in_epoch] % num_rows]
    return numbers


@lru_cache(maxsize=4)  # two row lengths, and the epochs before and after a border
def _order(num_rows: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(num_rows)


def first_positions(num_rows: int, length: int, step: int, *, seed: int) -> Tensor:
    """Where each row starts in the context: [num_rows, 1].

    Three quarters start at 0, where prompts start. The others start anywhere that fits, so that a task also works
    after a long text; rows as long as the context train every position.
    """
    rng = np.random.default_rng((seed, step, length))
    anywhere = rng.integers(0, N_POSITIONS - length + 1, size=num_rows)
    return torch.from_numpy(np.where(rng.random(num_rows) < 0.25, anywhere, 0)).unsqueeze(1)


@dataclass(frozen=True, slots=True)
class Batches:
    """All packed rows, and which of them each step takes."""

    short: Rows
    long: Rows
    seed: int

    @classmethod
    def load(cls, cache: Path, *, seed: int) -> "Batches":
        return cls(load_rows(cache / "short.npz"), load_rows(cache / "long.npz"), seed)

    def step(self, step: int, preset: Preset) -> Iterator[Batch]:
        """The micro-batches of one step."""
        for rows, count in ((self.short, preset.short_rows), (self.long, preset.long_rows)):
            numbers = row_numbers(len(rows.tokens), count, step, seed=self.seed)
            starts = first_positions(count, rows.length, step, seed=self.seed)
            size = max(1, preset.micro_batch_tokens // rows.length)
            for first in range(0, count, size):
                part = slice(first, first + size)
                yield to_batch(rows, numbers[part], starts[part])


def to_batch(rows: Rows, numbers: npt.NDArray[np.int64], first_position: Tensor) -> Batch:
    tokens = torch.from_numpy(rows.tokens[numbers].astype(np.int64))
    weights = torch.from_numpy(rows.weights[numbers].astype(np.float32))
    return Batch(tokens, weights, first_position)
