"""What is in the image, and what isn't."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.docker_engine import DockerEngine
from zeroshot_kernels.cpu import prebuilt

MAX_BYTES = 1.5e9
CONSTRAINTS = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()


@pytest.fixture(scope="module")
def config(engine: DockerEngine, image: str) -> dict[str, Any]:
    return json.loads(engine.docker("image", "inspect", image))[0]


def run_in(engine: DockerEngine, image: str, *command: str) -> str:
    return engine.docker("run", "--rm", "--network=none", "--entrypoint", command[0], image, *command[1:])


def test_size(config: dict[str, Any]) -> None:
    assert config["Size"] < MAX_BYTES


def test_runs_as_a_fixed_user_in_exec_form(config: dict[str, Any]) -> None:
    assert config["Config"]["User"] == "10001:10001"
    assert config["Config"]["Entrypoint"] == ["zeroshot"]
    assert config["Config"]["Healthcheck"]["Test"][0] == "CMD"


def test_labels(config: dict[str, Any]) -> None:
    labels = config["Config"]["Labels"]
    assert {"title", "description", "licenses", "version", "revision"} <= {
        name.removeprefix("org.opencontainers.image.") for name in labels
    }


def test_the_label_names_the_version_inside(engine: DockerEngine, image: str, config: dict[str, Any]) -> None:
    version = config["Config"]["Labels"]["org.opencontainers.image.version"]
    assert run_in(engine, image, "zeroshot", "--version") == f"zeroshot {version}"


def test_a_code_change_is_a_small_layer(engine: DockerEngine, image: str) -> None:
    """The code comes after torch and the other packages, in a layer of its own."""
    listing = engine.docker("history", "--human=false", "--no-trunc", "--format", "{{.Size}}\t{{.CreatedBy}}", image)
    sizes = [(int(size), command) for size, _, command in (line.partition("\t") for line in listing.splitlines())]
    newest_first = [size for size, _ in sizes]
    packages = max(newest_first)
    assert packages > 5e8
    assert sum(newest_first[: newest_first.index(packages)]) < 6e7


def test_packages_are_those_of_the_release(engine: DockerEngine, image: str) -> None:
    """At the tested versions, without CUDA, and without what only tests and training need."""
    packages = json.loads(run_in(engine, image, "/opt/venv/bin/python", "-m", "pip", "list", "--format=json"))
    versions = {package["name"].lower().replace("_", "-"): package["version"] for package in packages}
    assert versions["torch"].endswith("+cpu")
    assert not [name for name in versions if name.startswith(("nvidia", "cuda")) or name == "triton"]
    assert not {"pytest", "hypothesis", "mypy", "matplotlib", "sacrebleu", "openai"} & versions.keys()
    pinned = dict(line.lower().replace("_", "-").split("==") for line in CONSTRAINTS if "==" in line)
    installed = {name: version.partition("+")[0] for name, version in versions.items()}
    assert {name: version for name, version in installed.items() if pinned.get(name, version) != version} == {}


def test_nothing_of_the_repository_that_the_server_does_not_need(engine: DockerEngine, image: str) -> None:
    listing = run_in(engine, image, "find", "/app", "/opt/zeroshot", "-not", "-name", "*.pyc")
    names = {line.rsplit("/", 1)[1] for line in listing.splitlines()}
    assert {"translate.yaml", "model.safetensors", "cli.py"} <= names
    assert not {"tests", "benchmark.py", "training", ".git", "loss.png"} & names


def test_kernels_for_the_processors_that_were_asked_for(engine: DockerEngine, image: str) -> None:
    """`PROCESSORS=here`; which are right for it is asked by the log of a server that runs on them."""
    listing = run_in(engine, image, "find", "/opt/zeroshot/zeroshot_kernels/cpu/built", "-type", "f")
    best = prebuilt.levels_of_this_processor()[:1]
    assert [Path(line).stem.rsplit("-", 1)[0] for line in listing.splitlines()] == [level.name for level in best]


def test_a_model_that_is_not_there_is_one_readable_line(engine: DockerEngine, image: str) -> None:
    command = ("sh", "-c", "zeroshot serve --model no/such-model 2>&1; echo exit code $?")
    output = run_in(engine, image, *command)
    assert "Error:" in output
    assert output.endswith("exit code 1")
    assert "Traceback" not in output


def test_a_container_knows_how_much_memory_it_has_left(engine: DockerEngine, image: str) -> None:
    if engine.docker("info", "--format", "{{.MemoryLimit}}") != "true":
        pytest.skip("this Docker cannot limit a container's memory")
    program = "from zeroshot.engine.memory import host_bytes_left; print(host_bytes_left())"
    limited = engine.docker("run", "--rm", "--memory=600m", "--entrypoint=/opt/venv/bin/python", image, "-c", program)
    assert 0 < int(limited) < 600 * 2**20


THREADS = """
import torch
from zeroshot.engine.loader import load_engine
from zeroshot.settings import EngineSettings
load_engine(EngineSettings(model_folder="demo"))
print(torch.get_num_threads())
"""


def test_a_container_has_no_more_threads_than_cpus(engine: DockerEngine, image: str) -> None:
    if engine.docker("info", "--format", "{{.CPUCfsQuota}}") != "true":
        pytest.skip("this Docker cannot limit a container's CPUs")
    limited = engine.docker("run", "--rm", "--cpus=0.9", "--entrypoint=/opt/venv/bin/python", image, "-c", THREADS)
    assert limited.splitlines()[-1] == "1"
