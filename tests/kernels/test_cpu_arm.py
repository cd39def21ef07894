"""The C++ kernels compiled for 64-bit Arm, and run by an emulator, find what they find here."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from zeroshot_kernels.cpu.compiler import SOURCES
from zeroshot_kernels.cpu.prebuilt import LEVELS

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"

pytestmark = [
    pytest.mark.skipif(
        not all(map(shutil.which, ("g++", COMPILER, EMULATOR))),
        reason=f"takes g++, {COMPILER} and {EMULATOR}: Debian's g++-aarch64-linux-gnu and qemu-user",
    ),
    pytest.mark.timeout(1200),  # each compiles all of the kernels
]

PROGRAM = Path(__file__).with_name("cpu_results.cpp")
FLAGS = ["-std=c++20", "-O2", "-fopenmp", "-Wno-psabi", "-fno-math-errno", "-fno-trapping-math"]


def build(compiler: str, target: Path, *flags: str) -> Path:
    command = [compiler, *FLAGS, *flags, str(PROGRAM), *map(str, SOURCES.glob("*.cpp")), "-o", str(target)]
    subprocess.run(command, check=True, capture_output=True, timeout=900)
    return target


def results(*command: str) -> list[tuple[str, np.ndarray]]:
    """The name of a kernel and its numbers, in the order in which the program calls them."""
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return [(name, np.array(numbers, float)) for name, *numbers in map(str.split, run.stdout.splitlines())]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Not optimised: it runs for a moment only."""
    return results(str(build("g++", tmp_path_factory.mktemp("here") / "results", "-march=native", "-O0")))


@pytest.mark.parametrize("level", LEVELS["aarch64"], ids=lambda level: level.name)
def test_the_results_are_the_same(tmp_path, expected, level):
    found = results(EMULATOR, "-cpu", "max", str(build(COMPILER, tmp_path / "results", "-static", *level.flags)))
    assert len(found) == len(expected) > 20
    for (name, numbers), (expected_name, expected_numbers) in zip(found, expected, strict=True):
        assert name == expected_name
        np.testing.assert_allclose(numbers, expected_numbers, rtol=1e-4, atol=1e-5, err_msg=name)
