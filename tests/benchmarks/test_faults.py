"""docs/security.md shows what the committed result file says: every fault was recovered from, nothing was lost."""

import json
from pathlib import Path

from benchmarks import faults

ROOT = Path(__file__).parents[2]


def test_faults() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "faults.json").read_text())
    assert faults.markdown_table(found) in (ROOT / "docs" / "security.md").read_text()
    assert [row["fault"] for row in found["faults"]] == list(faults.FAULTS), "run it again: the list has changed"
    for row in found["faults"]:
        assert row["recovered"] == row["injected"] == len(row["seconds_to_recover"]) > 0, row
        assert row["lost"] == 0, row
