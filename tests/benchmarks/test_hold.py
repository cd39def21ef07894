"""What docs/security.md shows is what the committed result file says, and it says that nothing was lost."""

import json
from pathlib import Path

from benchmarks import hold
from tests.support.bad_input import all_cases

ROOT = Path(__file__).parents[2]


def test_bad_input() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "hold.json").read_text())
    assert hold.markdown_table(found) in (ROOT / "docs" / "security.md").read_text()
    assert found["inputs"] == len(all_cases()), "run it again: the list has changed"
    assert found["not_as_documented"] == []
    for count in ("answers_5xx", "hangs_or_no_answer", "next_request_wrong", "tracebacks_in_log", "kv_blocks_missing"):
        assert found[count] == 0, count
