"""`--output DIR`: a report as results.json, results.md and results.png."""

from pathlib import Path

from zeroshot.errors import InvalidRequest
from zeroshot.evaluation import chart, tables
from zeroshot.evaluation.report import CHART_FILE, REPORT_FILE, TABLE_FILE, Report, save


def check(folder: Path) -> None:
    """To call before hours of measuring. Raises InvalidRequest if `write` could not do its work."""
    if folder.exists() and not folder.is_dir():
        raise InvalidRequest(f"{folder} is not a folder; --output names the one to write to.")
    chart.check()


def write(report: Report, folder: Path) -> list[Path]:
    """Returns what was written. There is no chart where none of the paper's numbers was measured."""
    folder.mkdir(parents=True, exist_ok=True)
    save(report, folder / REPORT_FILE)
    (folder / TABLE_FILE).write_text(tables.markdown(report), encoding="utf-8")
    has_chart = chart.draw(report, folder / CHART_FILE)
    return [folder / REPORT_FILE, folder / TABLE_FILE, *([folder / CHART_FILE] if has_chart else [])]
