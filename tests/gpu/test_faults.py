"""The CUDA runner's tests of faults, on the GPU."""

from tests.engine.cuda_runner.test_faults import *  # noqa: F403
