"""Kernels compiled ahead of time, for machines that have no compiler, such as containers.

    python -m zeroshot_kernels.cpu.prebuilt        compile for every level of this architecture, into built/
    python -m zeroshot_kernels.cpu.prebuilt here   only for the one that this machine takes

A level is a set of instructions that many processors share; a machine takes the best one that it has. The result is not
distributed with the sources: a machine with a compiler makes kernels for exactly its own processor in some seconds.
"""

import argparse
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zeroshot_kernels.cpu.compiler import (
    SOURCES,
    compile_kernels,
    find_compiler,
    processor_features,
    sources_digest,
)

FOLDER = SOURCES / "built"
_V3 = "avx avx2 bmi1 bmi2 f16c fma abm movbe"
_V4 = f"{_V3} avx512f avx512bw avx512cd avx512dq avx512vl"
_MATRIX = "avx512_vnni avx512_bf16 amx_tile amx_int8 amx_bf16"
_AMX = ("-mavx512vnni", "-mavx512bf16", "-mamx-tile", "-mamx-int8", "-mamx-bf16")


@dataclass(frozen=True, slots=True)
class Level:
    """`needs`: the features in Linux's words, all of which a processor must have."""

    name: str
    flags: tuple[str, ...]
    needs: str

    def suits(self, features: set[str]) -> bool:
        return features.issuperset(self.needs.split())


LEVELS = {
    "x86_64": (
        Level("x86-64-v4-amx", ("-march=x86-64-v4", *_AMX), f"{_V4} {_MATRIX}"),
        Level("x86-64-v4-vnni", ("-march=x86-64-v4", "-mavx512vnni"), f"{_V4} avx512_vnni"),
        Level("x86-64-v4", ("-march=x86-64-v4",), _V4),
        Level("x86-64-v3-vnni", ("-march=x86-64-v3", "-mavxvnni"), f"{_V3} avx_vnni"),
        Level("x86-64-v3", ("-march=x86-64-v3",), _V3),
    ),
    "aarch64": (
        Level("armv8.2-a-dotprod", ("-march=armv8.2-a+dotprod",), "asimd asimddp"),
        Level("armv8-a", ("-march=armv8-a",), "asimd"),
    ),
}
"""Machine -> its levels, the best first."""


def find(folder: Path = FOLDER) -> Path | None:
    """The kernels of the best level that this processor has, of just these sources. None: there are none."""
    paths = (_path(folder, level) for level in levels_of_this_processor())
    return next((path for path in paths if path.exists()), None)


def levels_of_this_architecture() -> Sequence[Level]:
    return LEVELS.get(platform.machine(), ())


def levels_of_this_processor() -> Sequence[Level]:
    """Those whose instructions it has, the best first."""
    features = set(processor_features().split())
    return [level for level in levels_of_this_architecture() if level.suits(features)]


def build(levels: Sequence[Level], folder: Path = FOLDER) -> list[Path]:
    """Compile for each of them, and for nothing else. Raises KernelsUnavailable."""
    compiler = find_compiler()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for level in levels:
        compile_kernels(compiler, list(level.flags), _path(folder, level))
    return [_path(folder, level) for level in levels]


def _path(folder: Path, level: Level) -> Path:
    return folder / f"{level.name}-{sources_digest()}.so"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compile the C++ kernels for machines that have no compiler.")
    parser.add_argument("processors", nargs="?", choices=("all", "here"), default="all", help="of this architecture")
    is_all = parser.parse_args(arguments).processors == "all"
    for path in build(levels_of_this_architecture() if is_all else levels_of_this_processor()[:1]):
        print(path)  # noqa: T201 - the command's result


if __name__ == "__main__":
    main()
