"""A process of the load generator. Imports little: there are several, and each starts from nothing."""

import asyncio
import time
from typing import Any

from benchmarks.http_load import seconds_for


def ready(_index: int) -> None:
    """Imports are done when this runs; long enough that every process gets one."""
    time.sleep(0.2)


def client(url: str, bodies: list[dict[str, Any]]) -> tuple[float, float]:
    """When it began and when it ended, on the clock that all processes of a machine share."""
    seconds = asyncio.run(seconds_for(url, bodies))
    end = time.monotonic()
    return end - seconds, end
