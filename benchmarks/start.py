"""How long the server takes from its command to its first token: imports, weights, kernels, a token generated.

    python -m benchmarks.start                    # the bundled model, 5 times each in fp32 and int8
    python -m benchmarks.start --model gpt2 --rounds 3

One start that is not counted comes first: it compiles Python's files and the C++ kernels where that was not done yet.
"""

import statistics
import time
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmarks import command
from benchmarks.http_server import running_server


def seconds_to_ready(model: Path, dtype: str) -> float:
    """Until `/health/ready` says so, asked for ten times a second."""
    started = time.perf_counter()
    with running_server(model, "--dtype", dtype):
        return time.perf_counter() - started


def main() -> None:
    parser = command.parser("start", __doc__)
    parser.add_argument("--model", type=Path, default=command.DEMO, help="a name or folder, as for zeroshot serve")
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "int8"], help="to start in, by turns")
    parser.add_argument("--rounds", type=int, default=5, help="that count")
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {dtype: [] for dtype in arguments.dtypes}
    cases = [(number, dtype) for number in range(arguments.rounds + 1) for dtype in arguments.dtypes]
    for number, dtype in track(cases, transient=True):
        taken = round(seconds_to_ready(arguments.model, dtype), 2)
        if number > 0:
            seconds[dtype].append(taken)
    result = {
        "model": arguments.model.name,
        "seconds_to_ready": seconds,
    }
    command.write("start", result, arguments.output)
    for dtype, values in seconds.items():
        Console().print(f"{arguments.model.name} in {dtype}: ready after {statistics.median(values):.2f} s (median)")


if __name__ == "__main__":
    main()
