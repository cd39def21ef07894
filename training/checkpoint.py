"""Save and resume. A checkpoint is complete or absent: it is written beside its place and then renamed into it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(slots=True)
class Progress:
    """What a run has done so far, over all of its resumed parts."""

    step: int = 0
    elapsed_s: float = 0.0
    tokens: int = 0
    log: list[dict[str, float]] = field(default_factory=list)


@dataclass(slots=True)
class Checkpoint:
    """Everything the next step depends on; the data's order depends on the step alone."""

    model: dict[str, Any]
    optimizer: dict[str, Any]
    progress: Progress
    settings: dict[str, Any]


def save(path: Path, checkpoint: Checkpoint) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    progress = checkpoint.progress
    torch.save(
        {
            "model": checkpoint.model,
            "optimizer": checkpoint.optimizer,
            "settings": checkpoint.settings,
            "progress": {
                "step": progress.step,
                "elapsed_s": progress.elapsed_s,
                "tokens": progress.tokens,
                "log": progress.log,
            },
        },
        unfinished,
    )
    unfinished.replace(path)


def load(path: Path) -> Checkpoint:
    """Reads tensors and plain values only (`weights_only`), so a checkpoint can't run code."""
    raw = torch.load(path, map_location="cpu", weights_only=True)
    return Checkpoint(raw["model"], raw["optimizer"], Progress(**raw["progress"]), raw["settings"])
