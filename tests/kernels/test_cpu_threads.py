"""The CPU kernels' threads: what they do is right however many there are, and whoever calls at the same time."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zeroshot_kernels.cpu.compiler import SOURCES

# Where there is a compiler the kernels must be there: a mistake in them is no reason to skip what would find it.
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")

PROGRAM = Path(__file__).with_name("cpu_threads.cpp")
FLAGS = ["-std=c++20", "-O2", "-fopenmp", "-Wno-psabi", "-march=native", f"-I{SOURCES}"]


def build(target: Path, *flags: str) -> str:
    sources = [str(PROGRAM), str(SOURCES / "pool.cpp")]
    subprocess.run(["g++", *FLAGS, *flags, *sources, "-o", str(target)], check=True, capture_output=True, timeout=120)
    return str(target)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return build(tmp_path_factory.mktemp("threads") / "plain")


@pytest.mark.parametrize("num_threads", [1, 2, 3, 7])
def test_what_is_shared_is_done_in_order(program, num_threads):
    result = subprocess.run([program, str(num_threads), "5000"], capture_output=True, text=True, timeout=120)
    assert result.stdout == "right\n"


def test_no_two_threads_race(tmp_path):
    try:
        program = build(tmp_path / "sanitized", "-g", "-fsanitize=thread")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the compiler has no ThreadSanitizer: {error.stderr.decode().strip()[-200:]}")
    result = subprocess.run([program, "3", "500"], capture_output=True, text=True, timeout=120)
    if "FATAL: ThreadSanitizer" in result.stderr:  # not a race: it can't run under this kernel
        pytest.skip(result.stderr.strip()[:200])
    assert result.returncode == 0, result.stderr[:3000]
    assert result.stdout == "right\n"


OTHER_THREADS = """
import torch
from zeroshot_kernels.cpu import attention
torch.manual_seed(0)
tables = torch.arange(16)[None]
for num_tokens, attend in [
    (1, lambda query: attention.decode_attention(query, *caches, tables, [1000], 0.125)),
    (200, lambda query: attention.prefill_attention(query, *caches, tables, [200], [1000], 0.125)),
]:
    query, caches = torch.randn(num_tokens, 12, 64), torch.randn(2, 16, 64, 12, 64)
    torch.set_num_threads(1)
    expected = attend(query)
    torch.set_num_threads(2)
    assert all(torch.equal(attend(query), expected) for _ in range(20)), num_tokens
"""


def test_threads_other_than_openmp_would_have_taken():
    """As by `--threads 2` where there are more cores: the kernels' own threads share the work as their caller does."""
    environment = os.environ | {"OMP_NUM_THREADS": "4", "GOMP_SPINCOUNT": "0"}
    command = [sys.executable, "-W", "ignore", "-c", OTHER_THREADS]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


FORKED = """
import os, torch
from zeroshot.model.native_linear import native_linear_factory
torch.manual_seed(0)
linear = native_linear_factory("fp32")(torch.randn(64, 5000), None)
hidden = torch.randn(3, 64)
expected = linear(hidden)
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(linear(hidden), expected) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert torch.equal(linear(hidden), expected)
"""


def test_a_forked_process_works_without_the_threads_that_it_lacks():
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    result = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
