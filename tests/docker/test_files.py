"""The Docker files as such: no engine needed."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import zeroshot

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
COMPOSE_FILES = ("compose.yaml", "docker/compose.gpu.yaml", "docker/ray/compose.yaml")
DOCKERFILES = ("docker/Dockerfile", "docker/Dockerfile.gpu")


def lint(*command: str) -> None:
    result = subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("file", COMPOSE_FILES)
def test_compose_file_follows_the_specification(file: str) -> None:
    lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)


@pytest.mark.parametrize("file", DOCKERFILES)
def test_dockerfile(file: str) -> None:
    lint("hadolint", file)


@pytest.mark.parametrize("file", DOCKERFILES)
def test_version_of_the_label(file: str) -> None:
    assert f"ARG VERSION={zeroshot.__version__}" in (ROOT / file).read_text().splitlines()


def test_both_images_are_made_the_same_way() -> None:
    """The GPU image only adds to the CPU image's steps, except for torch's index, CPU kernels and what comments say."""
    cpu, gpu = ((ROOT / file).read_text().splitlines() for file in DOCKERFILES)
    missing = [line for line in cpu if line not in gpu and not line.startswith("#")]
    stage = missing.index("FROM ${BASE_IMAGE} AS cpu-kernels")
    end = missing.index('RUN python3 -m zeroshot_kernels.cpu.prebuilt "$PROCESSORS"') + 1
    assert missing[:stage] + missing[end:] == [
        "ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu",
        "COPY --from=cpu-kernels /build/zeroshot_kernels/cpu/built /opt/zeroshot/zeroshot_kernels/cpu/built",
        "    && install -d -o zeroshot -g zeroshot /models",
        "VOLUME /models",
    ]


def test_no_gpu_settings_in_the_way() -> None:
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["zeroshot"]
    assert "deploy" not in service
    assert "runtime" not in service
    gpu = yaml.safe_load((ROOT / "docker/compose.gpu.yaml").read_text())["services"]["zeroshot"]
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"


def test_what_goes_into_the_build_is_listed() -> None:
    """A new file in the repository stays out of the image unless .dockerignore lets it in."""
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in patterns
    copied = [
        source
        for line in (ROOT / "docker/Dockerfile").read_text().splitlines()
        if line.startswith("COPY") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    allowed = {pattern.strip("!/") for pattern in patterns if pattern.startswith("!")}
    assert {
        source
        for source in copied
        if not any(name.startswith(source) or source.startswith(f"{name}/") for name in allowed)
    } == set()
