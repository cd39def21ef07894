"""What the replicas last said of themselves, put together as if they were one engine. No Ray."""

from collections.abc import Iterable

from zeroshot.cluster.messages import Report
from zeroshot.model_client import EngineStatus
from zeroshot.telemetry.engine_collector import LifetimeTotals
from zeroshot.types import EngineStats

_SUMMED = [name for name in EngineStats.__struct_fields__ if name != "kernels"]


class Fleet:
    """`update` it with the reports of all replicas that answered. Counters never go back when a replica is gone."""

    def __init__(self) -> None:
        self.status: EngineStatus = "loading"
        self.stats = EngineStats()
        self.engines: frozenset[tuple[str, int]] = frozenset()
        """(replica, its engine's generation) of those that can generate."""
        self.num_restarts = 0
        self.totals = FleetTotals()
        self._restarts: dict[str, int] = {}

    def update(self, reports: Iterable[Report]) -> None:
        reports = list(reports)
        ready = [report for report in reports if report.status == "ready"]
        self.engines = frozenset((report.replica, report.generation) for report in ready)
        if ready:
            self.status = "ready"
        elif self.status == "ready":
            self.status = "restarting"
        self.stats = _sum(report.stats for report in ready)
        self._restarts |= {report.replica: report.num_restarts for report in reports}
        self.num_restarts = sum(self._restarts.values())
        for report in ready:
            self.totals.update_replica(report)


class FleetTotals(LifetimeTotals):
    """The counters of all replicas there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self._replicas: dict[str, LifetimeTotals] = {}

    def update_replica(self, report: Report) -> None:
        self._replicas.setdefault(report.replica, LifetimeTotals()).update(report.generation, report.stats)

    def __getitem__(self, name: str) -> int:
        return sum(totals[name] for totals in self._replicas.values())


def _sum(stats: Iterable[EngineStats]) -> EngineStats:
    stats = list(stats)
    kernels = stats[0].kernels if stats else {}
    return EngineStats(kernels=kernels, **{name: sum(getattr(one, name) for one in stats) for name in _SUMMED})
