"""The tests of `tests/engine/test_beams.py` once more, on the CUDA runner."""

from tests.engine.test_beams import *  # noqa: F403
