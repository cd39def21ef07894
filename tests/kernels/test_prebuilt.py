"""Kernels built ahead of time: which a machine takes, and that one without a compiler runs on them."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from zeroshot_kernels.cpu import prebuilt
from zeroshot_kernels.cpu.compiler import KernelsUnavailable, compile_kernels, find_compiler, processor_features

try:
    find_compiler()
except KernelsUnavailable as reason:
    pytest.skip(str(reason), allow_module_level=True)
if platform.machine() not in prebuilt.LEVELS:
    pytest.skip(f"no levels for {platform.machine()}", allow_module_level=True)

pytestmark = pytest.mark.timeout(1200)  # the first test compiles every level: a minute on two cores

LEVELS = prebuilt.LEVELS[platform.machine()]


def level_of(path: Path) -> str:
    return path.stem.rsplit("-", 1)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, quick_compiler: str) -> Path:
    folder = tmp_path_factory.mktemp("prebuilt") / "built"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", quick_compiler)
        assert [path.parent for path in prebuilt.build(LEVELS, folder)] == [folder] * len(LEVELS)
    return folder


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_a_processor_takes_the_best_level_it_has(folder, monkeypatch, level):
    monkeypatch.setattr(prebuilt, "processor_features", lambda: f"flags : fpu sse2 {level.needs}")
    assert level_of(prebuilt.find(folder)) == level.name


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_a_processor_that_lacks_one_instruction_set_does_not_take_it(folder, monkeypatch, level):
    for missing in level.needs.split():
        features = " ".join(name for name in level.needs.split() if name != missing)
        monkeypatch.setattr(prebuilt, "processor_features", lambda features=features: features)
        found = prebuilt.find(folder)
        assert found is None or level_of(found) != level.name


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86 has AMX")
def test_matrix_registers_are_used_where_a_level_has_them(folder):
    attention = b"8zeroshot6matrix4Room"  # of the names that the linker knows
    assert [level_of(path) for path in folder.iterdir() if attention in path.read_bytes()] == ["x86-64-v4-amx"]


def test_kernels_of_other_sources_are_not_taken(folder, monkeypatch):
    monkeypatch.setattr(prebuilt, "sources_digest", lambda: "0" * 16)
    assert prebuilt.find(folder) is None


RUN = """
import sys
from pathlib import Path
from zeroshot_kernels.cpu import library, prebuilt
prebuilt.find = lambda: Path(sys.argv[1])
import torch
from zeroshot.model.native_ops import why_unavailable
print(why_unavailable())
"""


def run(kernels: Path, cache: Path) -> "subprocess.CompletedProcess[str]":
    environment = {"CXX": "no-such-compiler", "XDG_CACHE_HOME": str(cache), "PATH": "/usr/bin"}
    command = [sys.executable, "-c", RUN, str(kernels)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_without_a_compiler_they_run_and_are_right(folder, tmp_path, level):
    if not level.suits(set(processor_features().split())):
        pytest.skip("this processor lacks some of its instructions")
    (kernels,) = (path for path in folder.iterdir() if level_of(path) == level.name)
    result = run(kernels, tmp_path)
    assert (result.stdout.strip(), result.stderr) == ("None", "")
    assert not list(tmp_path.iterdir())


def test_they_are_right_without_any_of_these_instructions(tmp_path, quick_compiler):
    """What is compiled here for a processor that no level suits: fp16 by arithmetic, sums by the compiler's vectors."""
    kernels = tmp_path / "plain.so"
    compile_kernels(quick_compiler, [], kernels)
    result = run(kernels, tmp_path)
    assert (result.stdout.strip(), result.stderr) == ("None", "")


def test_a_build_without_a_compiler_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(KernelsUnavailable, match="install g"):
        prebuilt.build(LEVELS, tmp_path / "built")
