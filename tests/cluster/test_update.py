"""Deploying again while requests run: a new model, new prompts, and a smaller queue, which then is seen to be full."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.cluster.load import load_on
from tests.cluster.support import ClusterServer
from tests.conftest import DEMO
from tests.http.test_tasks import SHOUT

FILLS_AN_ENGINE = {"prompt": "On and on", "max_tokens": 1000, "ignore_eos": True, "n": 4, "stream": True}


@pytest.fixture(scope="module")
def updated(
    server: ClusterServer, deploy: Callable[..., None], prompts: Path, tmp_path_factory: pytest.TempPathFactory
) -> ClusterServer:
    """Another model, one more task, and room for four sequences an engine. Nothing may fail meanwhile."""
    server.wait_for_engines(2)  # what earlier tests killed is there again
    (prompts / "shout.yaml").write_text(SHOUT)
    model = shutil.copytree(DEMO, tmp_path_factory.mktemp("models") / "demo-2")
    assert server.http.post("/tasks/shout", json={"text": "hello"}).status_code == 404
    with load_on(server.url, num_threads=3, pause_s=0.2) as load:
        load.wait_for(6)
        deploy("--model", str(model), "--max-surge-percent", "100", "--set", "max_queued_seqs=4")
        load.wait_for(len(load.outcomes) + 6)
    failed = [outcome for outcome in load.outcomes if outcome.text is None]
    assert failed == []
    assert {load.outcomes[0].model, load.outcomes[-1].model} == {"demo", "demo-2"}
    return server


def test_an_update_of_model_and_prompts_fails_no_request(updated: ClusterServer) -> None:
    assert updated.health()["model"] == "demo-2"
    answer = updated.http.post("/tasks/shout", json={"text": "hello", "explain": True}).json()
    assert answer["explain"]["prompt"] == "Say hello loudly:"


def test_when_every_replica_is_full_the_answer_is_429_and_when_to_retry(updated: ClusterServer) -> None:
    with ExitStack() as stack:
        for seed in range(2):  # the second finds a full replica, or another one
            stack.enter_context(running_stream(updated, seed))
        for path, body in (
            ("/generate", {"prompt": "a"}),
            ("/v1/completions", {"prompt": "a"}),
            ("/tasks/translate", {"text": "a"}),
        ):
            refused = updated.http.post(path, json=body)
            assert refused.status_code == 429, path
            assert refused.json()["error"]["code"] == "overloaded"
            assert 1 <= int(refused.headers["retry-after"]) <= 120
    updated.wait_until_idle()
    assert updated.http.post("/generate", json={"prompt": "a", "max_tokens": 2}).status_code == 200


@contextmanager
def running_stream(server: ClusterServer, seed: int) -> Iterator[None]:
    """A long request whose first token has come. A new replica first reads its tasks' prompts, which takes places."""
    deadline = time.monotonic() + 60
    while True:
        with server.http.stream("POST", "/generate", json=FILLS_AN_ENGINE | {"seed": seed}) as response:
            if response.status_code == 200:
                lines = response.iter_lines()  # kept: when the iterator goes, so does the connection
                assert "choices" in next(lines)
                yield
                return
            assert response.status_code == 429
            assert time.monotonic() < deadline
        time.sleep(0.1)
