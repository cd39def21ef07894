"""A histogram for what happens at every token."""

from bisect import bisect_left

from prometheus_client import Histogram


class StepHistogram(Histogram):
    """`note` at each token, `flush` once a step.

    Sequences that ran in the same two steps waited equally long between them, and equal amounts in a row share one
    update: `observe` would take a lock twice and walk the buckets for each. Both methods are for one thread, the event
    loop's; a scrape reads prometheus_client's own values, which change under their locks.
    """

    def _metric_init(self) -> None:
        super()._metric_init()
        self._amount = 0.0
        self._count = 0

    def note(self, amount: float, count: int = 1) -> None:
        if amount != self._amount:
            self.flush()
            self._amount = amount
        self._count += count

    def flush(self) -> None:
        if self._count:
            self._buckets[bisect_left(self._upper_bounds, self._amount)].inc(self._count)
            self._sum.inc(self._amount * self._count)
            self._count = 0
