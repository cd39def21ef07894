"""Two Ray nodes on this machine, and on them the bundled model with two engines: `make test-cluster`.

The parts of the HTTP suite that say nothing of one process's inside run here once more, through Serve's proxy.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from transformers import GPT2LMHeadModel

from tests.cluster.support import ClusterServer
from tests.conftest import DEMO, Checkpoint

PROMPTS = Path(__file__).parents[2] / "prompts"
CPUS_PER_NODE = 4  # as Ray counts them: two engines, an ingress, and room for as many more during an update


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning:ray.*")  # of pydantic, about Ray's own models


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("ray") is None:
        skip = pytest.mark.skip(reason="Ray is not installed: make test-cluster")
        for item in items:
            if item.path.is_relative_to(Path(__file__).parent):
                item.add_marker(skip)


class Nodes(NamedTuple):
    address: str
    url: str
    """Of Serve's proxy."""


@pytest.fixture(scope="session")
def nodes() -> Iterator[Nodes]:
    """Two nodes, each with processes of its own; Serve with a proxy on the first, for both have the same ports."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    node = {"num_cpus": CPUS_PER_NODE, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(**node)
        ray.init(address=cluster.address, log_to_driver=False)
        port = free_port()
        serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
        yield Nodes(cluster.address, f"http://127.0.0.1:{port}")
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is deployed; a test may add files, and deploy again."""
    return Path(shutil.copytree(PROMPTS, tmp_path_factory.mktemp("prompts") / "prompts"))


@pytest.fixture(scope="session")
def deploy(nodes: Nodes, prompts: Path) -> Callable[..., None]:
    """deploy(*more arguments): `zeroshot deploy` as somebody types it, until it returns."""

    def run(*arguments: str) -> None:
        command = [sys.executable, "-m", "zeroshot", "deploy", "--address", nodes.address, "--prompts", str(prompts)]
        result = subprocess.run(
            [*command, "--min-replicas", "2", *arguments], capture_output=True, text=True, timeout=240
        )
        assert result.returncode == 0, result.stderr

    return run


@pytest.fixture(scope="session")
def server(nodes: Nodes, deploy: Callable[..., None]) -> Iterator[ClusterServer]:
    deploy()
    running = ClusterServer(nodes.url)
    running.wait_until(lambda health: health["status"] == "ready")
    yield running
    running.http.close()


@pytest.fixture(autouse=True)
def both_engines(request: pytest.FixtureRequest) -> None:
    """Before each test that has a server: whatever the last one killed is there again."""
    if "server" in request.fixturenames:
        request.getfixturevalue("server").wait_for_engines(2)


@pytest.fixture(scope="session")
def gpt2_checkpoint() -> Checkpoint:
    """The model that is served, for tests that compare with Hugging Face."""
    return Checkpoint(DEMO, GPT2LMHeadModel.from_pretrained(DEMO, dtype=torch.float32).eval())
