"""Reports: into a file and back, as tables, as a picture; and what the registry declares."""

import errno
import io
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

from zeroshot.errors import InvalidRequest
from zeroshot.evaluation import chart, output, tables
from zeroshot.evaluation.datasets import ALL
from zeroshot.evaluation.protocol import SIZES, Measurement
from zeroshot.evaluation.report import Outcome, Report, load, row, save


@pytest.fixture
def report(find) -> Report:
    lambada = find("lambada")
    rows = [
        row(lambada, Measurement("perplexity_last_token", 1234.5678, 20, 5153, 9.5, ("a note",))),
        row(lambada, Measurement("accuracy_word", 12.0, 20, 5153, 3.25)),
    ]
    measured = Outcome(
        name="lambada",
        title="LAMBADA",
        section="3.3",
        protocol="p",
        status="measured",
        is_shown_in_training=True,
        rows=rows,
    )
    skipped = Outcome(name="ptb", title="PTB", section="3.1", protocol="p", status="skipped", reason="no file [x]")
    return Report(
        version="1", model="m", mode="in process", limit=20, seed=0, stride=None, outcomes=[measured, skipped]
    )


def test_a_report_comes_back_from_its_file(report, tmp_path):
    save(report, tmp_path / "new" / "results.json")
    assert load(tmp_path / "new" / "results.json") == report
    with pytest.raises(InvalidRequest):
        load(tmp_path / "missing.json")


def test_paper_and_measured_stand_side_by_side(report):
    text = tables.markdown(report)
    line = next(line for line in text.splitlines() if line.startswith("| LAMBADA"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[0] == "LAMBADA (shown in training)"
    assert cells[3:] == ["35.13", "15.60", "10.87", "8.63", "1234.57 ± 9.50", "20 of 5,153"]
    assert "* ptb: skipped: no file [x]" in text
    assert "not zero-shot" in text
    assert "a note" in text


def test_terminal_tables_hold_the_same(report):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(tables.results(report), tables.listing(ALL))
    text = console.export_text()
    assert "1234.57 ± 9.50" in text
    for evaluation in ALL:
        assert evaluation.name in text


def test_files_of_an_output_folder(report, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    written = output.write(report, tmp_path / "out")
    assert [path.name for path in written] == ["results.json", "results.md", "results.png"]
    assert written[2].read_bytes().startswith(b"\x89PNG")


def test_an_earlier_report_is_replaced_and_nothing_else(report, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    output.write(report, tmp_path)
    output.check(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "results.md", "results.png"}
    (tmp_path / "results.json").write_text('{"mine": 1}')
    with pytest.raises(InvalidRequest, match=r"results\.json is there already"):
        output.check(tmp_path)
    (tmp_path / "results.json").unlink()
    with pytest.raises(InvalidRequest, match=r"results\.md is there already"):
        output.check(tmp_path)


def test_a_folder_that_can_not_be_written_to_is_refused_before_it_starts(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "out", Path("/proc/out"), tmp_path / ("a" * 300)):
        with pytest.raises(InvalidRequest, match=r"is not a folder|can't be written to"):
            output.check(folder)


def test_a_full_disk_leaves_the_earlier_report_whole(report, tmp_path, monkeypatch):
    output.write(report, tmp_path)

    def write_half(path, content):
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(InvalidRequest, match="No space left on device"):
        output.write(report, tmp_path)
    assert load(tmp_path / "results.json") == report


def test_without_matplotlib_the_run_is_refused_before_it_starts(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InvalidRequest, match="pip install matplotlib"):
        output.check(tmp_path)
    with pytest.raises(InvalidRequest, match="matplotlib"):
        chart.check()


def test_the_registry_declares_everything():
    assert len({evaluation.name for evaluation in ALL}) == len(ALL)
    for evaluation in ALL:
        assert len({metric.key for metric in evaluation.metrics}) == len(evaluation.metrics)
        assert evaluation.files
        assert evaluation.protocol
        for metric in evaluation.metrics:
            assert metric.protocol
            assert metric.paper is None or len(metric.paper) == len(SIZES)
            assert metric.paper is None or evaluation.section, "a number of the paper has its place in it"
