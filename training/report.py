"""What a reader of the model card wants to know about a run; measured, not typed. Written by `train.py` at its end."""

import json
import platform
from pathlib import Path
from typing import Any

import torch

from training.trainer import Trainer

LOG_FILE = "training_log.json"
_ADDED_UP = ("steps", "tokens", "wall_time_min")


def report(trainer: Trainer, device: str, threads: int) -> dict[str, Any]:
    """One run: its size, cost, settings and loss curve."""
    done = trainer.progress
    return {
        "parameters_trained": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "steps": done.step,
        "tokens": done.tokens,
        "wall_time_min": round(done.elapsed_s / 60, 1),
        "tokens_per_s": round(done.tokens / done.elapsed_s),
        "device": device,
        "threads": threads,
        "precision": "bf16 autocast" if trainer.use_bf16 else "fp32",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "max_lr": trainer.schedule.max_lr,
        "max_steps": trainer.schedule.max_steps,
        "max_hours": trainer.schedule.max_hours,
        "log": done.log,
    }


def continued(earlier: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """The report of a run that started from another's weights: totals over both, one loss curve, and each run's own.

    `stages` holds the reports of all runs so far, oldest first, without their curves.
    """
    stages = [*earlier.get("stages", [_without_log(earlier)]), _without_log(run)]
    totals = {name: round(earlier[name] + run[name], 1) for name in _ADDED_UP}
    last = earlier["log"][-1] if earlier["log"] else {"step": 0, "tokens": 0, "elapsed_s": 0.0}
    log = earlier["log"] + [
        {**entry, **{name: entry[name] + last[name] for name in ("step", "tokens", "elapsed_s")}}
        for entry in run["log"]
    ]
    return {**run, **totals, "stages": stages, "log": log}


def earlier_report(folder: Path) -> dict[str, Any]:
    """The report beside exported weights. Raises FileNotFoundError if there is none."""
    report: dict[str, Any] = json.loads((folder / LOG_FILE).read_text(encoding="utf-8"))
    return report


def _without_log(run: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in run.items() if name != "log"}
