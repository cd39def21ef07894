"""The loss curve as a PNG, from the log a run keeps."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display needed

import matplotlib.pyplot as plt


def plot_loss(log: Sequence[dict[str, float]], path: Path) -> None:
    """One line for the training loss, one for each held-out loss, over the tokens seen."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for key, label in (
        ("loss", "training, weighted mixture"),
        ("held_out_short", "held out: translation, reviews, answers"),
        ("held_out_long", "held out: prose, abstracts"),
    ):
        points = [(entry["tokens"] / 1e6, entry[key]) for entry in log if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1.5)
    axes.set(xlabel="million tokens", ylabel="cross-entropy (nats per token)")
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
