"""`routing.ranked` as a request router of Ray Serve. Runs where requests to the replicas are sent: in each ingress."""

from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from zeroshot.cluster.routing import SLACK, Route, ranked

NO_ROUTE = Route(None)


class PrefixRouter(RequestRouter):
    """Serve tries the groups of replicas in the order returned, and passes over one that is full or doesn't answer."""

    _slack = SLACK

    def initialize_state(self, slack: int = SLACK, **_: Any) -> None:
        self._slack = slack

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        route = NO_ROUTE
        if pending_request is not None:
            route = pending_request.kwargs.get("route", NO_ROUTE)
            # All of them are in the answer: when none takes the request, wait before asking again.
            pending_request.routing_context.should_backoff = True
        by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        loads = {name: self.replica_queue_len_cache.get(replica.replica_id) or 0 for name, replica in by_name.items()}
        order = ranked(route.prefix, loads, slack=self._slack, avoid=route.avoid)
        return [[by_name[name]] for name in order]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:  # noqa: ARG002
        route = pending_request.kwargs.get("route")
        if route is not None:
            route.replica = replica_id.unique_id
