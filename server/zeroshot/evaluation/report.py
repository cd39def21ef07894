"""The outcome of a run: plain values, written as JSON and read back, so that every table and chart comes from the file.

No time of day in it: the same model, data and options give the same report but for the durations.
"""

from pathlib import Path
from typing import Literal

import msgspec

from zeroshot.errors import InvalidRequest
from zeroshot.evaluation.protocol import SIZES, Better, Evaluation, Measurement

REPORT_FILE = "results.json"
TABLE_FILE = "results.md"
CHART_FILE = "results.png"

Status = Literal["measured", "skipped", "failed"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One number, the paper's beside it."""

    key: str
    name: str
    protocol: str
    better: Better
    paper: dict[str, float]
    """By the paper's names of its models; empty where it gives none."""
    differs: str
    """Why the two are not the same measurement, in words; empty where nothing is known to differ."""
    value: float
    stderr: float | None
    count: int
    total: int
    notes: list[str]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one evaluation."""

    name: str
    title: str
    section: str
    protocol: str
    status: Status
    reason: str = ""
    """Why it was skipped or failed."""
    is_shown_in_training: bool | None = None
    """True: the model saw demonstrations of this task in training, so nothing here is zero-shot. None: not known."""
    files: dict[str, str] = {}
    """SHA-256 of the unpacked content, by file name."""
    duration_s: float = 0.0
    rows: list[Row] = []


class Report(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    model: str
    mode: str
    limit: int | None
    seed: int
    stride: int | None
    outcomes: list[Outcome]

    @property
    def is_success(self) -> bool:
        """Something was measured and nothing failed."""
        statuses = {outcome.status for outcome in self.outcomes}
        return "measured" in statuses and "failed" not in statuses


def row(evaluation: Evaluation, measurement: Measurement) -> Row:
    metric = evaluation.metric(measurement.key)
    numbers = zip(SIZES, metric.paper or (None,) * len(SIZES), strict=True)
    return Row(
        key=metric.key,
        name=metric.name,
        protocol=metric.protocol,
        better=metric.better,
        paper={size: number for size, number in numbers if number is not None},
        differs=metric.differs,
        value=_rounded(measurement.value),
        stderr=None if measurement.stderr is None else _rounded(measurement.stderr),
        count=measurement.count,
        total=measurement.total,
        notes=list(measurement.notes),
    )


def _rounded(value: float) -> float:
    """Six digits: the last bits of a log-probability depend on which requests shared its batch."""
    return float(f"{value:.6g}")


def save(report: Report, path: Path) -> None:
    """One that is there already stays whole until all of the new one has been written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    partial.replace(path)


def load(path: Path) -> Report:
    """Raises InvalidRequest if the file is missing or holds something else."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidRequest(f"{path} is not a report of zeroshot eval: {error}") from None
