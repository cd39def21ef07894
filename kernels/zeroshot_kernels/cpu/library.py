"""Compiles the C++ kernels for this processor, once, and loads them.

The library calls OpenMP but is not linked to it: it finds the one that PyTorch has brought. Two of them in a process
would each keep threads spinning on the same cores.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

_SOURCES = Path(__file__).parent
_FLAGS = ["-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-fvisibility=hidden"]
_FLAGS += ["-fno-math-errno", "-fno-trapping-math"]  # not -ffast-math: NaN must come out where NaN went in
_COMPILE_TIMEOUT_S = 120

_FLOATS = _BYTES = _INTS = ctypes.c_void_p
_SIZE, _FLAG = ctypes.c_int64, ctypes.c_int
_SIGNATURES = {
    "zeroshot_float_linear": [*[_FLOATS] * 5, *[_SIZE] * 3, _FLAG],
    "zeroshot_int8_linear": [_FLOATS, _BYTES, _FLOATS, _INTS, *[_FLOATS] * 3, _BYTES, _FLOATS, *[_SIZE] * 3, _FLAG],
    "zeroshot_decode_attention": [*[_FLOATS] * 3, _INTS, _INTS, _FLOATS, *[_SIZE] * 6, ctypes.c_float],
    "zeroshot_prefill_attention": [*[_FLOATS] * 3, *[_INTS] * 3, _FLOATS, *[_SIZE] * 6, ctypes.c_float],
    "zeroshot_layer_norm": [*[_FLOATS] * 4, *[_SIZE] * 2, ctypes.c_float],
    "zeroshot_kv_append": [_FLOATS, _FLOATS, _INTS, _FLOATS, _FLOATS, *[_SIZE] * 3],
}


class KernelsUnavailable(Exception):
    """Why there are no C++ kernels on this machine."""


@functools.cache
def library() -> ctypes.CDLL:
    """The kernels, compiled if they aren't yet (some seconds). Raises KernelsUnavailable."""
    try:
        loaded = ctypes.CDLL(str(_compiled()))
    except OSError as error:
        raise KernelsUnavailable(f"the compiled kernels can't be loaded: {error}") from error
    for name, argument_types in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = argument_types, None
    return loaded


def _compiled() -> Path:
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise KernelsUnavailable("there is no C++ compiler: install g++")
    target = _cache_folder() / f"cpu-kernels-{_fingerprint(compiler)}.so"
    if not target.exists():
        _compile(compiler, target)
    return target


def _compile(compiler: str, target: Path) -> None:
    """Into a file of its own first: several engines may start at once, and one may be killed half-way."""
    sources = [str(path) for path in sorted(_SOURCES.glob("*.cpp"))]
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        objects = [f"{Path(source).stem}.o" for source in sources]
        processes = [
            _start([compiler, *_FLAGS, "-c", source, "-o", name], folder)
            for source, name in zip(sources, objects, strict=True)
        ]
        for process in processes:
            _finish(process)
        _finish(_start([compiler, "-shared", *objects, "-o", "kernels.so"], folder))
        (Path(folder) / "kernels.so").replace(target)


def _start(command: list[str], folder: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603 - all of it ours


def _finish(process: "subprocess.Popen[str]") -> None:
    try:
        output, _ = process.communicate(timeout=_COMPILE_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise KernelsUnavailable(f"the C++ compiler took more than {_COMPILE_TIMEOUT_S} s") from error
    if process.returncode != 0:
        first_line = next(iter(output.strip().splitlines()), "no message")
        raise KernelsUnavailable(f"the C++ compiler failed: {first_line[:200]}")


def _fingerprint(compiler: str) -> str:
    """Of all that the result depends on. A home directory may be shared by machines with different processors."""
    parts = [_read(path).encode() for path in sorted(_SOURCES.glob("*.[ch]*"))]
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False, timeout=30)  # noqa: S603
    parts += [version.stdout, " ".join(_FLAGS).encode(), platform.machine().encode(), _processor_features().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor_features() -> str:
    lines = _read(Path("/proc/cpuinfo")).splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _cache_folder() -> Path:
    """One that nobody else can write to, since what lies in it is run."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zeroshot"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
        is_private = found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if is_private and os.access(folder, os.W_OK):
            return folder
    except OSError:  # read-only, or no home: fall through to a folder of this process
        pass
    return Path(_process_folder().name)


@functools.cache
def _process_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="zeroshot-kernels-")  # goes when the process ends
