"""The tables in the documentation are the ones that the code and the committed results give."""

from pathlib import Path

from zeroshot.evaluation import tables
from zeroshot.evaluation.datasets import ALL
from zeroshot.evaluation.report import CHART_FILE, REPORT_FILE, TABLE_FILE, load

DOCS = Path(__file__).parents[3] / "docs"


def test_the_protocols_are_those_of_the_code():
    assert tables.protocols(ALL) in (DOCS / "evaluation.md").read_text(encoding="utf-8")


def test_the_table_is_that_of_the_committed_results():
    table = tables.markdown(load(DOCS / "evaluation" / REPORT_FILE))
    assert (DOCS / "evaluation" / TABLE_FILE).read_text(encoding="utf-8") == table
    assert table in (DOCS / "evaluation.md").read_text(encoding="utf-8")
    assert (DOCS / "evaluation" / CHART_FILE).read_bytes().startswith(b"\x89PNG")
