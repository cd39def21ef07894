"""docs/cpu.md says what the committed result file says."""

import json
from pathlib import Path

from benchmarks.fairness import markdown_table

ROOT = Path(__file__).parents[2]


def test_the_page_says_what_the_result_file_says() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "fairness.json").read_text())
    assert markdown_table(found) in (ROOT / "docs" / "cpu.md").read_text()
