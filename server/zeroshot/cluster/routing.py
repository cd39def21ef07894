"""Which replica a prompt goes to. Plain Python; `router.py` is how Ray Serve asks.

Prompts that begin alike go to the same replica, whose prefix cache then holds that beginning. Rendezvous hashing
(Thaler and Ravishankar, 1998) of a prompt's first KV block puts the replicas in an order that every ingress works out
for itself; a replica that comes or goes moves only its own share of the prompts. A replica that has much more to do
than the least loaded one is passed over, so that a popular task spreads over several.
"""

import hashlib
import random
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

PREFIX_TOKENS = 16
"""The smallest KV block: of a shorter prompt nothing stays in the cache."""
SLACK = 8
"""Requests that a prompt's own replica may have more than the least loaded one before others help out."""


@dataclass(slots=True)
class Route:
    """What the router is told about a request, and which replica it chose."""

    prefix: bytes | None
    avoid: list[str] = field(default_factory=list)
    """Replicas to take only if there is no other: they have failed this request, or refused it."""
    replica: str = ""
    """The one it was given to last."""


def prefix_of(token_ids: Sequence[int]) -> bytes | None:
    """What prompts that can share a KV block have in common. None for those too short to leave one behind.

    The same for every caller: pinned prefixes, those of the tasks, are shared by all.
    """
    if len(token_ids) < PREFIX_TOKENS:
        return None
    return hashlib.blake2b(array("q", token_ids[:PREFIX_TOKENS]).tobytes(), digest_size=16).digest()


def ranked(
    prefix: bytes | None, loads: Mapping[str, int], *, slack: int = SLACK, avoid: Collection[str] = ()
) -> list[str]:
    """All replicas, the best first. `loads`: each replica's running and waiting requests."""
    usable = [replica for replica in loads if replica not in avoid]
    last = [replica for replica in loads if replica in avoid]
    if prefix is None:
        return [*_two_choices(usable, loads), *_two_choices(last, loads)]
    return [*_by_affinity(prefix, usable, loads, slack), *_by_affinity(prefix, last, loads, slack)]


def _by_affinity(prefix: bytes, replicas: list[str], loads: Mapping[str, int], slack: int) -> list[str]:
    """In the prefix's own order those that have room, then the others, the least loaded first."""
    limit = slack + min((loads[replica] for replica in replicas), default=0)
    order = sorted(replicas, key=lambda replica: _weight(prefix, replica), reverse=True)
    free = [replica for replica in order if loads[replica] <= limit]
    return free + sorted((replica for replica in order if loads[replica] > limit), key=loads.__getitem__)


def _two_choices(replicas: list[str], loads: Mapping[str, int]) -> list[str]:
    """In random order, of the first two the less loaded one first: many ingresses don't all run to the same one."""
    order = random.sample(replicas, len(replicas))
    return sorted(order[:2], key=loads.__getitem__) + order[2:]


def _weight(prefix: bytes, replica: str) -> bytes:
    return hashlib.blake2b(replica.encode(), key=prefix, digest_size=8).digest()
