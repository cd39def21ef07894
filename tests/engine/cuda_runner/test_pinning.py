"""The tests of `tests/engine/test_pinning.py` once more, on the CUDA runner."""

from tests.engine.test_pinning import *  # noqa: F403
