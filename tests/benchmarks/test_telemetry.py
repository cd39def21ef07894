"""docs/operations.md says what the committed result file says."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_says_what_the_result_file_says() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "telemetry.json").read_text())
    medians = found["medians"]
    text = " ".join((ROOT / "docs" / "operations.md").read_text().split())
    assert f"for a streamed token with {found['num_seqs']} streams:" in text
    assert f"{medians['without']:.1f} µs of processor time without, {medians['with']:.1f} with" in text
    assert f"{found['ratio']:.3f} times" in text
