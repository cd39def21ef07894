"""What the server survived, in one table: bad inputs, injected faults, the soak. Reads what those benchmarks wrote.

    python -m benchmarks.promises

The table of docs/security.md.
"""

import json
import statistics
from typing import Any

from benchmarks.command import RESULTS


def markdown_table(hold: dict[str, Any], faults: dict[str, Any], soak: dict[str, Any]) -> str:
    """Of the results of `benchmarks.hold`, `benchmarks.faults` and `benchmarks.soak`."""
    kinds = faults["faults"]
    injected = sum(row["injected"] for row in kinds)
    recovered = sum(row["recovered"] for row in kinds)
    slowest = max(max(row["seconds_to_recover"]) for row in kinds)
    again = [fault["recovered_s"] for fault in soak["faults"]]
    rows = [
        ("bad inputs tried", f"{hold['inputs']:,}"),
        ("… answered with a 5xx, or not at all", f"{hold['answers_5xx']}, {hold['hangs_or_no_answer']}"),
        ("… after which the next request was wrong", f"{hold['next_request_wrong']}"),
        (f"faults injected, of {len(kinds)} kinds", f"{injected}"),
        ("… recovered from, in seconds at most", f"{recovered}, {slowest:.1f}"),
        ("… requests lost", f"{sum(row['lost'] for row in kinds)}"),
        (f"requests in the soak of {soak['minutes']:g} minutes", f"{soak['requests']:,}"),
        ("… engines killed or hung meanwhile", f"{len(again)}"),
        ("… seconds to recover from that, median", f"{statistics.median(again):.1f}"),
        ("… lost", f"{soak['lost']}"),
        ("… wrong, of whole answers asked for again", f"{soak['wrong']} of {soak['rechecked']:,}"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {what} | {count} |" for what, count in rows)])


def main() -> None:
    results = [json.loads((RESULTS / f"{name}.json").read_text()) for name in ("hold", "faults", "soak")]
    print(markdown_table(*results))


if __name__ == "__main__":
    main()
