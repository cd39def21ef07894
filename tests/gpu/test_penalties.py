"""The tests of `tests/engine/test_penalties.py` once more, on the GPU."""

from tests.engine.test_penalties import *  # noqa: F403
