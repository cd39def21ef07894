"""`--output DIR`: a report as results.json, results.md and results.png."""

from pathlib import Path
from tempfile import TemporaryFile

from zeroshot.errors import InvalidRequest
from zeroshot.evaluation import chart, tables
from zeroshot.evaluation.report import CHART_FILE, REPORT_FILE, TABLE_FILE, Report, load, save


def check(folder: Path) -> None:
    """To call before hours of measuring. Raises InvalidRequest if `write` could not do its work.

    `write` replaces what an earlier run has left in the folder, and nothing else that has such a name.
    """
    chart.check()
    try:
        if folder.exists() and not folder.is_dir():
            raise InvalidRequest(f"{folder} is not a folder; --output names the one to write to.")
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
        taken = [name for name in (REPORT_FILE, TABLE_FILE, CHART_FILE) if (folder / name).exists()]
    except OSError as error:
        raise _not_writable(folder, error) from None
    if taken and not _is_report(folder / REPORT_FILE):
        raise InvalidRequest(
            f"{folder / taken[0]} is there already, and is not what zeroshot eval writes: choose another --output."
        )


def write(report: Report, folder: Path) -> list[Path]:
    """Returns what was written. There is no chart where none of the paper's numbers was measured.

    Raises InvalidRequest if the disk is full, for example.
    """
    try:
        save(report, folder / REPORT_FILE)
        (folder / TABLE_FILE).write_text(tables.markdown(report), encoding="utf-8")
        has_chart = chart.draw(report, folder / CHART_FILE)
    except OSError as error:
        raise _not_writable(folder, error) from None
    return [folder / REPORT_FILE, folder / TABLE_FILE, *([folder / CHART_FILE] if has_chart else [])]


def _is_report(path: Path) -> bool:
    try:
        load(path)
    except InvalidRequest:
        return False
    return True


def _not_writable(folder: Path, error: OSError) -> InvalidRequest:
    return InvalidRequest(f"{folder} can't be written to: {error.strerror}.")
