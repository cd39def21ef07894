"""A histogram for what happens at every token."""

from bisect import bisect_left

from prometheus_client import Histogram


class StepHistogram(Histogram):
    """`note` at each token, `flush` once a step: a step's tokens mostly fall into one bucket and share its update.

    `observe` takes a lock twice and walks the buckets. Both methods are for one thread, the event loop's;
    prometheus_client's own values, which a scrape reads from another thread, change in `flush` only.
    """

    def _metric_init(self) -> None:
        super()._metric_init()
        self._counts: dict[int, int] = {}
        self._total = 0.0

    def note(self, amount: float) -> None:
        index = bisect_left(self._upper_bounds, amount)
        self._counts[index] = self._counts.get(index, 0) + 1
        self._total += amount

    def flush(self) -> None:
        if self._counts:
            for index, count in self._counts.items():
                self._buckets[index].inc(count)
            self._sum.inc(self._total)
            self._counts.clear()
            self._total = 0.0
