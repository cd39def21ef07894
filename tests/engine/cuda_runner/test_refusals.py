"""The tests of `tests/engine/test_refusals.py` once more, on the CUDA runner."""

from tests.engine.test_refusals import *  # noqa: F403
