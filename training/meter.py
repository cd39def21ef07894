"""What a run shows while it runs: loss, tokens/s, held-out losses and the time left."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from training.packing import Rows
from training.trainer import Trainer


class Meter:
    """Mean loss and tokens/s since the last entry of the log."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self._restart()

    def _restart(self) -> None:
        self.losses: list[float] = []
        self.started, self.first_token = time.monotonic(), self.trainer.progress.tokens

    def entry(self, held_out: dict[str, Rows]) -> dict[str, float]:
        """The next entry of the log; losses on `held_out` are measured if there are any."""
        done = self.trainer.progress
        entry: dict[str, float] = {
            "step": done.step,
            "tokens": done.tokens,
            "elapsed_s": round(done.elapsed_s, 1),
            "loss": round(sum(self.losses) / len(self.losses), 4),
            "tokens_per_s": round((done.tokens - self.first_token) / (time.monotonic() - self.started)),
            "lr": float(f"{self.trainer.optimizer.param_groups[0]['lr']:.3g}"),
        }
        entry |= {name: round(self.trainer.held_out_loss(rows), 4) for name, rows in held_out.items()}
        self._restart()
        return entry


class ProgressBar:
    """Loss, tokens/s and the time left; on a terminal a bar, in a file one line per entry of the log."""

    def __init__(self, console: Console) -> None:
        self.console = console
        columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task("starting", total=1.0)

    @contextmanager
    def shown(self) -> Iterator[None]:
        with self.bar:
            yield

    def update(self, trainer: Trainer, entry: dict[str, float]) -> None:
        done, elapsed_s = trainer.share_done, entry["elapsed_s"]
        left_s = elapsed_s * (1 - done) / done if done else 0.0
        held_out = "".join(f"  {name} {entry[name]:.3f}" for name in entry if name.startswith("held_out"))
        text = f"step {entry['step']:,.0f}  loss {entry['loss']:.3f}{held_out}"
        text += f"  {entry['tokens_per_s']:,.0f} tokens/s  {left_s / 60:.0f} min left"
        self.bar.update(self.task, completed=done, description=text)
        if not self.console.is_terminal:
            self.console.print(f"{done:6.1%}  {text}", soft_wrap=True, highlight=False)
