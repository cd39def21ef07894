"""One engine, one build of the image and one `docker compose` project for all of these tests."""

import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support import docker_engine as engines
from tests.support.docker_engine import DockerEngine

ROOT = Path(__file__).parents[2]
PUBLIC_BASE = "python:3.12-slim-bookworm"
PROJECT_FILES = ("compose.yaml", "docker", "prompts", "model_weights/demo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test of these waits for the build of the image: minutes, where nothing of it is there yet."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(1200))


@pytest.fixture(scope="session")
def engine() -> Iterator[DockerEngine]:
    try:
        with engines.docker_engine() as running:
            yield running
    except engines.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def compose(engine: DockerEngine) -> list[str]:
    """The command: Compose v2, or 1.29, which reads the same files."""
    if engine.docker("compose", "version", check=False):
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    pytest.skip("neither `docker compose` nor docker-compose is installed")


@pytest.fixture(scope="session")
def image(engine: DockerEngine, compose: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tag of the image that `docker compose build` makes of the working tree."""
    folder = engine.scratch or tmp_path_factory.mktemp("base")
    build: dict[str, Any] = {"args": {"PROCESSORS": "here"}}  # tests/kernels/test_prebuilt.py has the others
    with ExitStack() as stack:
        if not engines.pull(engine, PUBLIC_BASE):
            try:
                build["args"]["BASE_IMAGE"] = engines.make_stand_in(engine, folder)
            except engines.Unavailable as reason:
                pytest.skip(str(reason))
            for wheels in engines.wheel_folders()[:1]:
                build["args"] |= {"TORCH_INDEX": "", "FIND_LINKS": stack.enter_context(engines.served(wheels))}
        if not engine.has_bridge:
            build["network"] = "host"
        override = folder / "override.yaml"
        override.write_text(yaml.safe_dump({"services": {"zeroshot": {"build": build}}}))
        engine.run(*compose, "-f", "compose.yaml", "-f", str(override), "build", "zeroshot", cwd=ROOT, timeout=900)
    return "zeroshot:cpu"


class Project:
    """The repository's compose.yaml in a folder of its own, as somebody who cloned it would run it."""

    def __init__(self, engine: DockerEngine, compose: list[str], folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.engine, self.folder, self._compose = engine, folder, compose
        self.environment = {
            "PORT": str(port),
            "COMPOSE_PROJECT_NAME": f"zeroshot-test-{port}",
            "ZEROSHOT_NUM_THREADS": "1",  # a second one waits for the first where other work keeps the cores busy
        }
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, timeout=60)
        self.settings: dict[str, str] | None = None
        """With which it was brought up last; None before."""

    def compose(self, *arguments: str, **environment: str) -> str:
        running = DockerEngine(self.engine.environment | self.environment | environment)
        return running.run(*self._compose, *arguments, cwd=self.folder)

    def up(self, **environment: str) -> None:
        self.compose("up", "--detach", "--no-build", "zeroshot", **environment)
        self.settings = environment
        self.wait_until_ready()

    @property
    def container(self) -> str:
        """Its id. The engine says it at once; Compose 1.29 takes a second to start."""
        labels = (f"project={self.environment['COMPOSE_PROJECT_NAME']}", "service=zeroshot")
        filters = [f"--filter=label=com.docker.compose.{label}" for label in labels]
        return self.engine.docker("ps", "--all", "--quiet", "--no-trunc", *filters)

    def inspect(self) -> dict[str, Any]:
        return json.loads(self.engine.docker("inspect", self.container))[0]

    def exec(self, *command: str, check: bool = True) -> str:
        return self.engine.docker("exec", self.container, *command, check=check)

    def is_ready(self) -> bool:
        try:
            return self.http.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def wait_until_ready(self) -> None:
        self.wait_until(self.is_ready)

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 120) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self.compose("logs", "--no-color")
            time.sleep(0.1)

    def translate(self, text: str) -> str:
        response = self.http.post("/tasks/translate", json={"text": text})
        assert response.status_code == 200, response.text
        return response.json()["output"]


@pytest.fixture(scope="session")
def project(
    engine: DockerEngine, compose: list[str], image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """Up and ready; taken down with its volumes at the end."""
    folder = tmp_path_factory.mktemp("project")
    for name in PROJECT_FILES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, folder / name)
    running = Project(engine, compose, folder)
    try:
        yield running
    finally:
        running.http.close()
        running.compose("down", "--volumes", "--timeout", "5")


@pytest.fixture
def service(project: Project) -> Project:
    """The project with its server ready, whatever the test before did to it."""
    if project.settings != {} or not project.is_ready():
        project.up()
    return project
