"""docs/security.md and docs/operations.md show what the committed result files say."""

import json
from pathlib import Path

from benchmarks import promises, soak

ROOT = Path(__file__).parents[2]


def result(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def test_the_table_of_promises_is_that_of_the_results():
    table = promises.markdown_table(result("hold"), result("faults"), result("soak"))
    assert table in (ROOT / "docs" / "security.md").read_text()


def test_the_soaks_table_is_that_of_its_result():
    assert soak.markdown_table(result("soak")) in (ROOT / "docs" / "operations.md").read_text()


def test_what_the_committed_soak_promises():
    found = result("soak")
    assert (found["lost"], found["failed"], found["wrong"], found["leaks"]) == (0, 0, 0, [])
    assert found["minutes"] >= 10
    assert found["rechecked"] > 0
    assert found["kv_blocks"]["free_at_end"] == found["kv_blocks"]["total"]
