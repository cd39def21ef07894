"""How much one tenant may ask for: requests a minute, and requests at once."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from zeroshot.api.access.keys import Tenant
from zeroshot.errors import RateLimited


@dataclass(slots=True)
class _Use:
    tokens: float
    """Requests that may come now: a bucket that fills at the rate and holds a minute's worth."""
    filled_at: float
    num_running: int = 0


class Quotas:
    """None means no limit. Keeps an entry for each key that was ever used: never more than there are keys."""

    def __init__(
        self,
        *,
        requests_per_minute: int | None,
        max_concurrent: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_minute = requests_per_minute
        self._max_concurrent = max_concurrent
        self._clock = clock
        self._uses: dict[str, _Use] = {}

    @contextmanager
    def request(self, tenant: Tenant) -> Iterator[None]:
        """Counts a request as long as it runs. Raises RateLimited, and then doesn't count it."""
        use = self._uses.setdefault(tenant.name, _Use(float(self._per_minute or 0), self._clock()))
        if self._max_concurrent is not None and use.num_running >= self._max_concurrent:
            raise RateLimited(
                f"{use.num_running} requests of this key are running; it may have {self._max_concurrent} at once.",
                retry_after_s=1,
            )
        self._take(use)
        use.num_running += 1
        try:
            yield
        finally:
            use.num_running -= 1

    def _take(self, use: _Use) -> None:
        if self._per_minute is None:
            return
        now, per_second = self._clock(), self._per_minute / 60
        use.tokens = min(self._per_minute, use.tokens + (now - use.filled_at) * per_second)
        use.filled_at = now
        missing = round(1 - use.tokens, 6)  # a float: a third three times is less than one
        if missing > 0:
            raise RateLimited(
                f"This key may send {self._per_minute} requests a minute.",
                retry_after_s=math.ceil(round(missing / per_second, 3)),
            )
        use.tokens -= 1
