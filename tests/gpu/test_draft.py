"""The tests of `tests/engine/cuda_runner/test_draft.py` once more, on the GPU."""

from tests.engine.cuda_runner.test_draft import *  # noqa: F403
