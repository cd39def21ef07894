"""What a server tells of itself when it starts."""

import re
import subprocess
import sys
from contextlib import ExitStack

import httpx
import pytest

COMMAND = [sys.executable, "-m", "zeroshot"]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_server_tells_the_port_that_was_picked_for_it(log_format: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", "--threads", "1", "--log-format", log_format],
        stderr=subprocess.PIPE,
        text=True,
    )
    with ExitStack() as at_the_end:
        at_the_end.callback(process.communicate)
        at_the_end.callback(process.terminate)
        assert process.stderr is not None
        url = next(match[0] for line in process.stderr if (match := re.search(r"http://127\.0\.0\.1:\d+/", line)))
        assert httpx.get(f"{url}health/live", timeout=30).status_code == 200
