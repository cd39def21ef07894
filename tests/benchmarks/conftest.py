"""What several benchmarks are run on."""

from pathlib import Path

import pytest

from benchmarks.random_checkpoint import random_checkpoint


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The benchmarks' own, made here: to make it they would each import transformers, which takes seconds."""
    return random_checkpoint("tiny", tmp_path_factory.mktemp("checkpoints"))
