"""Compiles the C++ kernels: once for the processor it runs on, or ahead of time for those of `prebuilt.py`."""

import functools
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).parent
_FLAGS = ["-std=c++20", "-O3", "-fopenmp", "-fPIC", "-fvisibility=hidden", "-Wno-psabi"]
_FLAGS += ["-fno-math-errno", "-fno-trapping-math"]  # not -ffast-math: NaN must come out where NaN went in
_TIMEOUT_S = 300


class KernelsUnavailable(Exception):
    """Why there are no C++ kernels on this machine."""


def compiled_here() -> Path:
    """The kernels for this processor, compiled if they aren't yet (some seconds). Raises KernelsUnavailable."""
    compiler = find_compiler()
    target = _cache_folder() / f"cpu-kernels-{_fingerprint(compiler)}.so"
    if not target.exists():
        logger.info("compiling the C++ kernels for this processor: some seconds, at the first start only")
        compile_kernels(compiler, ["-march=native"], target)
    return target


def find_compiler() -> str:
    """Raises KernelsUnavailable where there is none."""
    name = os.environ.get("CXX", "g++")
    compiler = shutil.which(name)
    if compiler is None:
        raise KernelsUnavailable(
            f"there is no C++ compiler {name!r}: install g++, or let CXX name one, without options"
        )
    return compiler


def compile_kernels(compiler: str, machine_flags: list[str], target: Path) -> None:
    """Into a file of its own first: several engines may start at once, and one may be killed half-way.

    Raises KernelsUnavailable with what the compiler says first.
    """
    sources = [str(path) for path in sorted(SOURCES.glob("*.cpp"))]
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        objects = [f"{Path(source).stem}.o" for source in sources]
        processes = [
            _start([compiler, *_FLAGS, *machine_flags, "-c", source, "-o", name], folder)
            for source, name in zip(sources, objects, strict=True)
        ]
        try:
            for process in processes:
                _finish(process)
        finally:  # if one failed, none of the others may write into a folder that is going
            for process in processes:
                process.kill()
                process.wait()
        _finish(_start([compiler, "-shared", *objects, "-o", "kernels.so"], folder))
        (Path(folder) / "kernels.so").replace(target)


def sources_digest() -> str:
    """A digest of the sources and of the flags that are the same on every machine."""
    parts = [path.read_bytes() for path in sorted(SOURCES.glob("*.[ch]*"))]
    return hashlib.sha256(b"\0".join([*parts, " ".join(_FLAGS).encode()])).hexdigest()[:16]


def _start(command: list[str], folder: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603 - all of it ours


def _finish(process: "subprocess.Popen[str]") -> None:
    try:
        output, _ = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        process.kill()
        process.wait()
        raise KernelsUnavailable(f"the C++ compiler took more than {_TIMEOUT_S} s") from error
    if process.returncode != 0:
        lines = output.strip().splitlines() or ["no message"]
        first = next((line for line in lines if "error" in line), lines[0])
        raise KernelsUnavailable(f"the C++ compiler failed: {first[:200]}")


def _fingerprint(compiler: str) -> str:
    """A digest of all that the result depends on: machines with different processors may share a home directory."""
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, check=False, timeout=30)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise KernelsUnavailable(f"the C++ compiler does not answer: {error}") from error
    parts = [version.stdout, sources_digest().encode(), platform.machine().encode(), processor_features().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def processor_features() -> str:
    """The names of this processor's instruction sets, as Linux lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:  # another system
        lines = []
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _cache_folder() -> Path:
    """One that nobody else can write to, since what lies in it is run."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zeroshot"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
        is_private = found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if is_private and os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # read-only, or no home: fall through to a folder of this process
        pass
    return Path(_process_folder().name)


@functools.cache
def _process_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="zeroshot-kernels-")  # goes when the process ends
