"""A download's progress for a log: whole lines, where a bar that redraws itself would show nothing until its end."""

import sys
import time
from typing import Any

from tqdm import tqdm

_INTERVAL_S = 5.0


class ProgressLines(tqdm):  # type: ignore[misc]
    """A tqdm that prints a line every few seconds, and a last one when it is done."""

    _last_line_s = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._started_s = time.monotonic()
        super().__init__(*args, **(kwargs | {"ncols": 80, "ascii": True}))

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:  # noqa: ARG002
        now = time.monotonic()
        if now - max(self._last_line_s, self._started_s) >= _INTERVAL_S:
            self._last_line_s = now
            self._print_line()
        return True

    def close(self) -> None:
        if not self.disable and self.n:
            self._print_line()
        super().close()

    def _print_line(self) -> None:
        print(str(self).strip(), file=sys.stderr, flush=True)  # noqa: T201
