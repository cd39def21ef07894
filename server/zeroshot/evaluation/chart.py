"""A report as a picture: one panel a metric that the paper has, its models' bars and the measured one."""

import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

from zeroshot.errors import InvalidRequest
from zeroshot.evaluation.corpora import Skipped
from zeroshot.evaluation.metrics import library
from zeroshot.evaluation.protocol import SIZES
from zeroshot.evaluation.report import Outcome, Report, Row

_COLUMNS = 4
_PANEL_INCHES = (3.1, 2.5)
_PAPER_COLOR, _MEASURED_COLOR = "#b8bec8", "#d1495b"
_TITLE_CHARS = 52  # what fits above a panel


def check() -> None:
    """To call before hours of measuring. Raises InvalidRequest if there will be no chart."""
    _matplotlib()


def draw(report: Report, path: Path) -> bool:
    """Write a PNG; False if none of the paper's numbers was measured. Raises InvalidRequest without matplotlib."""
    figures = _matplotlib()
    panels = [(outcome, row) for outcome in report.outcomes for row in outcome.rows if row.paper]
    if not panels:
        return False
    columns = min(_COLUMNS, len(panels))
    num_rows = -(-len(panels) // columns)
    size = (_PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * num_rows + 0.5)
    figure = figures.Figure(figsize=size, layout="constrained")
    axes = figure.subplots(num_rows, columns, squeeze=False).flatten()
    for axis, (outcome, row) in zip(axes, panels, strict=False):
        _draw_panel(axis, report.model, outcome, row)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(
        f"GPT-2 paper (grey) and {report.model} (red)   * not the same measurement, see the notes", fontsize=10
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return True


def _matplotlib() -> ModuleType:
    """Its Figure, not pyplot: no window system, no global state."""
    try:
        return library("matplotlib.figure", "matplotlib")
    except Skipped as error:
        raise InvalidRequest(f"The chart {error.message}") from None


def _draw_panel(axis: Any, model: str, outcome: Outcome, row: Row) -> None:
    names = [size for size in SIZES if size in row.paper]
    values = [*(row.paper[name] for name in names), row.value]
    colors = [_PAPER_COLOR] * len(names) + [_MEASURED_COLOR]
    bars = axis.bar([*names, model], values, color=colors, yerr=[0.0] * len(names) + [row.stderr or 0.0])
    axis.bar_label(bars, fmt="%.4g", fontsize=7, padding=1)
    if row.better == "lower":
        axis.set_yscale("log")
    axis.margins(y=0.18)
    mark = " *" if row.differs else ""
    arrow = "lower is better" if row.better == "lower" else "higher is better"
    protocol = textwrap.fill(row.protocol, _TITLE_CHARS)
    axis.set_title(f"{outcome.title}: {row.name}{mark}\n{protocol}\n{arrow}", fontsize=7)
    axis.tick_params(labelsize=7)
