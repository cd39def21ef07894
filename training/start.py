"""Where a run starts: a finished model's weights, to go on from with a new optimizer and schedule."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from training.report import earlier_report
from training.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Start:
    """Weights over the compact vocabulary, and the report of the runs that made them."""

    weights: dict[str, Tensor]
    report: dict[str, Any]

    @classmethod
    def read(cls, folder: Path, vocabulary: Vocabulary) -> "Start":
        """Raises FileNotFoundError if a file is missing, ValueError if the model has another vocabulary."""
        return cls(compact(folder, vocabulary), earlier_report(folder))


def compact(folder: Path, vocabulary: Vocabulary) -> dict[str, Tensor]:
    """The inverse of `export.expand`: an exported folder's weights over the compact vocabulary, in fp32.

    Raises FileNotFoundError if there is no exported model, ValueError if its shared rows are not those of `vocabulary`.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: export a trained model first")
    weights = {name.removeprefix("transformer."): weight.float() for name, weight in load_file(path).items()}
    table = torch.from_numpy(vocabulary.to_compact().astype(np.int64))
    rows = torch.empty(vocabulary.size, weights["wte.weight"].shape[1])
    rows[table] = weights["wte.weight"]
    if not torch.equal(rows[table], weights["wte.weight"]):
        raise ValueError(f"{folder} was trained with another vocabulary: prepare the main mixture as it was then")
    return weights | {"wte.weight": rows}
