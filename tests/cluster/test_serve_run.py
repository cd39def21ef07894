"""Ray's own command line runs the same application, beside another one; and load adds engines to it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import Nodes
from tests.cluster.load import load_on
from tests.cluster.support import ClusterServer


@pytest.fixture(scope="module")
def other(server: ClusterServer, nodes: Nodes) -> Iterator[ClusterServer]:  # beside it
    where = ["--address", nodes.address, "--name", "other", "--route-prefix", "/other", "--non-blocking"]
    arguments = ["model=demo", "max_replicas=2", "target_ongoing_requests=1"]
    serve = str(Path(sys.executable).parent / "serve")
    command = [serve, "run", *where, "zeroshot.cluster.application:app", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    running = ClusterServer(f"{nodes.url}/other")
    yield running
    running.http.close()
    from ray.serve import delete

    delete("other")


def test_it_answers_under_its_own_prefix(server: ClusterServer, other: ClusterServer) -> None:
    other.wait_for_engines(1)
    body = {"prompt": "On and on", "max_tokens": 8, "temperature": 0}
    assert (
        other.http.post("/generate", json=body).json()["choices"]
        == server.http.post("/generate", json=body).json()["choices"]
    )
    assert other.http.post("/tasks/translate", json={"text": "Thank you."}).status_code == 200
    assert "/generate" in other.http.get("/openapi.json").json()["paths"]
    assert server.http.get("/nothing/health").status_code == 404


def test_load_adds_an_engine(other: ClusterServer) -> None:
    other.wait_for_engines(1)
    with load_on(other.url, num_threads=6) as load:
        other.wait_for_engines(2, timeout_s=120)
        load.wait_for(len(load.outcomes) + 6)
    assert [outcome for outcome in load.outcomes if outcome.text is None] == []
