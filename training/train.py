"""The training loop: `python -m training.train`. Run `python -m training.prepare` first.

Stop it at any time (Ctrl-C or SIGTERM saves a checkpoint); the same command goes on where it stopped.
"""

import json
import platform
import signal
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from training.batches import Batches, load_rows
from training.encoding import load_vocabulary
from training.folders import CACHE, DEMO, RUNS
from training.hardware import describe, keep_freed_memory, multiplies_bf16, pick_device
from training.meter import Meter, ProgressBar
from training.packing import Rows
from training.plot import plot_loss
from training.presets import PRESETS
from training.schedule import Schedule
from training.trainer import Trainer

LOG_EVERY = 50  # steps
SAVE_EVERY_S = 300.0


class StopRequest:
    """Set by SIGINT or SIGTERM; the loop looks at it between steps."""

    def __init__(self) -> None:
        self.is_set = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.is_set = True


def run(
    trainer: Trainer, held_out: dict[str, Rows], path: Path, stop: StopRequest, console: Console, *, until: float
) -> None:
    """Steps until a share of the schedule is done or someone asks to stop; saves every five minutes and at the end."""
    saved_at = time.monotonic()
    meter, bar = Meter(trainer), ProgressBar(console)
    with bar.shown():
        while trainer.share_done < until and not stop.is_set:
            meter.losses.append(trainer.step())
            step = trainer.progress.step
            if step % LOG_EVERY == 0 or trainer.is_finished:
                is_due = step % trainer.preset.eval_every == 0 or trainer.is_finished
                entry = meter.entry(held_out if is_due else {})
                trainer.progress.log.append(entry)
                bar.update(trainer, entry)
            if time.monotonic() - saved_at > SAVE_EVERY_S:
                trainer.save(path)
                saved_at = time.monotonic()
    trainer.save(path)


def report(trainer: Trainer, device: str, threads: int) -> dict[str, Any]:
    """What a reader of the model card wants to know about the run; measured, not typed."""
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


def _check_choice(option: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise typer.BadParameter(f"{option} must be one of {', '.join(choices)}, not {value!r}")


def main(
    preset: Annotated[str, typer.Option(help=f"Size of the run: {', '.join(PRESETS)}.")] = "cpu",
    name: Annotated[str, typer.Option(help="Folder under training/runs for the checkpoint.")] = "demo",
    hours: Annotated[float | None, typer.Option(help="End after this much training time, not after max_steps.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Replaces the preset's number of steps.")] = None,
    max_lr: Annotated[float | None, typer.Option(help="Replaces the preset's peak learning rate.")] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 means PyTorch's choice.")] = 0,
    mixture: Annotated[str, typer.Option(help="Which prepared rows to train on.")] = "main",
    until: Annotated[
        float, typer.Option(help="Stop after this share of the run, to go on with another mixture.")
    ] = 1.0,
    cache: Annotated[Path, typer.Option(help="Where `training.prepare` left the rows.")] = CACHE,
    reports: Annotated[Path, typer.Option(help="Folder for loss.png and training_log.json.")] = DEMO,
    seed: Annotated[int, typer.Option(help="Decides initial weights and the order of the data.")] = 0,
) -> None:
    """Train or go on training. Example: python -m training.train --preset cpu --hours 1.5"""
    _check_choice("--preset", preset, PRESETS)
    _check_choice("--precision", precision, ("auto", "fp32", "bf16"))
    _check_choice("--device", device, ("auto", "cpu", "cuda"))
    console = Console()
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    where = pick_device(device)
    chosen = replace(
        PRESETS[preset], max_steps=max_steps or PRESETS[preset].max_steps, max_lr=max_lr or PRESETS[preset].max_lr
    )
    try:
        batches = Batches.load(cache / mixture, seed=seed)
    except FileNotFoundError as error:
        raise typer.BadParameter(str(error)) from None
    trainer = Trainer.create(
        batches,
        chosen,
        Schedule(chosen.max_lr, chosen.warmup_steps, chosen.max_steps, hours),
        vocabulary=load_vocabulary(cache),
        device=where,
        use_bf16=multiplies_bf16(where) if precision == "auto" else precision == "bf16",
        seed=seed,
    )
    path = RUNS / name / "checkpoint.pt"
    if path.is_file():
        try:
            trainer.resume(path)
        except ValueError as error:
            raise typer.BadParameter(f"{error}; choose another --name") from None
        console.print(f"going on from step {trainer.progress.step:,} of {path}")
    held_out = {
        f"held_out_{length}": load_rows(cache / mixture / f"held_out_{length}.npz") for length in ("short", "long")
    }
    run(trainer, held_out, path, StopRequest(), console, until=until)
    if not trainer.is_finished:
        console.print(f"stopped at step {trainer.progress.step:,}; the same command goes on from {path}")
        return
    summary = report(trainer, describe(where), torch.get_num_threads())
    (reports / "training_log.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    plot_loss(trainer.progress.log, reports / "loss.png")
    console.print(f"finished: {path}; now run `python -m training.export --run {name}`")


if __name__ == "__main__":
    typer.run(main)
