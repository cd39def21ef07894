"""A queueing model of replicas that batch: each works on all its requests at once, at a speed that depends on how many.

Processor sharing with a speed that depends on the load, behind the less loaded of two random replicas; simulated, for
there is no closed form. See `capacity.py`.
"""

import heapq
import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

STEP = 1.05
"""Replicas are looked for to within five per cent."""
_MAX_REPLICAS_SIMULATED = 200


@dataclass(frozen=True)
class Curve:
    """Requests a second that one replica finishes with k requests at once; straight lines between what was measured."""

    concurrency: tuple[float, ...]
    rate: tuple[float, ...]

    @classmethod
    def of(cls, points: Sequence[dict[str, float]]) -> "Curve":
        ordered = sorted(points, key=lambda point: point["concurrency"])
        return cls(
            tuple(point["concurrency"] for point in ordered), tuple(point["requests_per_s"] for point in ordered)
        )

    @property
    def best(self) -> float:
        return max(self.rate)

    def at(self, num_requests: int) -> float:
        """Beyond the last point: as fast as there."""
        index = bisect_left(self.concurrency, num_requests)
        if index == len(self.concurrency):
            return self.rate[-1]
        if self.concurrency[index] == num_requests or index == 0:
            return self.rate[index] * min(1.0, num_requests / self.concurrency[index])
        x0, x1 = self.concurrency[index - 1], self.concurrency[index]
        share = (num_requests - x0) / (x1 - x0)
        return self.rate[index - 1] + share * (self.rate[index] - self.rate[index - 1])


@dataclass
class _Replica:
    """`done`: how much of a request anybody who was here all the time would have got. A request is done at 1 more."""

    done: float = 0.0
    seen_at: float = 0.0
    ends: list[tuple[float, float]] = field(default_factory=list)
    """(the `done` at which a request is finished, when it came), a heap."""
    version: int = 0

    def advance(self, now: float, curve: Curve) -> None:
        if self.ends:
            self.done += (now - self.seen_at) * curve.at(len(self.ends)) / len(self.ends)
        self.seen_at = now

    def next_end(self, curve: Curve) -> float:
        if not self.ends:
            return math.inf
        return self.seen_at + (self.ends[0][0] - self.done) * len(self.ends) / curve.at(len(self.ends))


def simulate(curve: Curve, *, num_replicas: int, rate: float, num_requests: int, seed: int = 0) -> list[float]:
    """Latencies in seconds of requests that come at random, `rate` a second; those of the first tenth are left out."""
    source = random.Random(seed)
    replicas = [_Replica() for _ in range(num_replicas)]
    events: list[tuple[float, int, int]] = []  # (time of the next end, replica, its version then)
    latencies: list[float] = []
    arrival, num_arrived = source.expovariate(rate), 0
    while len(latencies) < num_requests:
        while events and events[0][2] != replicas[events[0][1]].version:
            heapq.heappop(events)
        if num_arrived < num_requests and (not events or arrival <= events[0][0]):
            now, index = arrival, _less_loaded(replicas, source)
            replica = replicas[index]
            replica.advance(now, curve)
            heapq.heappush(replica.ends, (replica.done + 1.0, now))
            num_arrived += 1
            arrival += source.expovariate(rate)
        else:
            now, index, _ = heapq.heappop(events)
            replica = replicas[index]
            replica.advance(now, curve)
            latencies.append(now - heapq.heappop(replica.ends)[1])
        replica.version += 1
        if replica.ends:
            heapq.heappush(events, (replica.next_end(curve), index, replica.version))
    return latencies[num_requests // 10 :]


def replicas_needed(curve: Curve, rate: float, limit_s: float) -> tuple[int, list[float]]:
    """The fewest replicas whose 99th percentile is within the limit, and the latencies then.

    Raises ValueError where no number is enough. A fleet of more than 200 is simulated as 200 with their share of the
    requests: by then one more makes no difference to the others.
    """
    alone_s = 1 / curve.at(1)
    if limit_s <= alone_s:
        raise ValueError(f"a request alone takes {alone_s:g} s: no number of replicas keeps to {limit_s:g} s")
    replicas = max(1, math.ceil(rate / curve.best))
    while True:
        simulated = min(replicas, _MAX_REPLICAS_SIMULATED)
        share = rate * simulated / replicas
        if share < simulated * curve.best:
            latencies = simulate(curve, num_replicas=simulated, rate=share, num_requests=max(20_000, 100 * simulated))
            if percentile(latencies, 0.99) <= limit_s:
                return replicas, latencies
        replicas = max(replicas + 1, math.ceil(replicas * STEP))


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def _less_loaded(replicas: list[_Replica], source: random.Random) -> int:
    first, second = source.randrange(len(replicas)), source.randrange(len(replicas))
    return first if len(replicas[first].ends) <= len(replicas[second].ends) else second
