"""Ray nodes on this machine and the server deployed on them, for benchmarks. Needs the extra `cluster`."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

try:
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: install Ray; in a checkout: pip install -c constraints.txt -e '.[cluster]'") from None

from zeroshot.cluster.application import app


@contextmanager
def ray_cluster(num_nodes: int, cpus_per_node: int = 4) -> Iterator[str]:
    """Yields the URL at which what `deploy` deploys will be. CPUs are as Ray counts them: nothing is pinned."""
    node = {"num_cpus": cpus_per_node, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(num_nodes - 1):
            cluster.add_node(**node)
        ray.init(address=cluster.address, log_to_driver=False)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()


def deploy(**arguments: Any) -> None:
    """See `zeroshot.cluster.application.app`. A deployment before it goes first: nothing of its caches stays."""
    serve.delete("zeroshot")
    serve.run(app(arguments), name="zeroshot", route_prefix="/")
