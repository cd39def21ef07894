"""The tests of `tests/engine/test_beams.py` once more, on the GPU."""

from tests.engine.test_beams import *  # noqa: F403
