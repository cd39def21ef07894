"""The tests of `tests/engine/test_logprobs.py` once more, on the GPU."""

from tests.engine.test_logprobs import *  # noqa: F403
