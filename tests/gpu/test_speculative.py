"""The tests of `tests/engine/test_speculative.py` once more, on the GPU."""

import pytest

from tests.engine.test_speculative import *  # noqa: F403


@pytest.fixture(scope="module")
def dtype():
    return "fp32"
