"""The training loop: `python -m training.train`. Run `python -m training.prepare` first.

Stop it at any time (Ctrl-C or SIGTERM saves a checkpoint); the same command goes on where it stopped.
"""

import json
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Annotated

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
from training.report import LOG_FILE, continued, report
from training.schedule import Schedule
from training.start import Start
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
    start_from: Annotated[
        Path | None, typer.Option(help="Folder of an exported model to go on from, with a new optimizer and schedule.")
    ] = None,
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
    chosen = PRESETS[preset].shortened(max_steps, max_lr)
    try:
        batches = Batches.load(cache / mixture, seed=seed)
        vocabulary = load_vocabulary(cache)
        start = Start.read(start_from, vocabulary) if start_from else None
    except (FileNotFoundError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    trainer = Trainer.create(
        batches,
        chosen,
        Schedule(chosen.max_lr, chosen.warmup_steps, chosen.max_steps, hours),
        vocabulary=vocabulary,
        device=where,
        use_bf16=multiplies_bf16(where) if precision == "auto" else precision == "bf16",
        seed=seed,
    )
    if start is not None:
        trainer.model.load_state_dict(start.weights)
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
    if start is not None:
        summary = continued(start.report, summary)
    (reports / LOG_FILE).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    plot_loss(summary["log"], reports / "loss.png")
    console.print(f"finished: {path}; now run `python -m training.export --run {name}`")


if __name__ == "__main__":
    typer.run(main)
