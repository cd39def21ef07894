"""The tests of `tests/engine/test_generation.py` once more, on the CUDA runner."""

from tests.engine.test_generation import *  # noqa: F403
