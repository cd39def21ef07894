"""Install the build of torch that fits this machine: CUDA where there is an NVIDIA GPU, the CPU build elsewhere.

A plain `pip install torch` brings gigabytes of CUDA libraries to machines that can't use them. Called by `make setup`.
"""

import argparse
import importlib.util
import shutil
import subprocess
import sys
import urllib.error
import urllib.request


def has_nvidia_gpu() -> bool:
    if shutil.which("nvidia-smi") is None:
        return False
    return subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode == 0  # noqa: S607


def is_reachable(index_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{index_url.rstrip('/')}/torch/", timeout=5):  # noqa: S310
            return True
    except (urllib.error.URLError, OSError, ValueError):
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requirement", default="torch", help="what to install, for example torch==2.13.0")
    parser.add_argument("--cpu-index", default="", help="package index of the CPU builds; empty: pip's own index")
    arguments = parser.parse_args()
    if importlib.util.find_spec("torch") is not None:
        return
    index: list[str] = []
    if not has_nvidia_gpu() and arguments.cpu_index:
        if is_reachable(arguments.cpu_index):
            index = ["--index-url", arguments.cpu_index]
        else:
            print(f"{arguments.cpu_index} can't be reached; using pip's own index", file=sys.stderr)  # noqa: T201
    options = ["--disable-pip-version-check", "--no-compile", *index]
    command = [sys.executable, "-m", "pip", "install", *options, arguments.requirement]
    sys.exit(subprocess.run(command, check=False).returncode)  # noqa: S603


if __name__ == "__main__":
    main()
