"""A server with a small random checkpoint and the real tokenizer."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Server, run_server


@pytest.fixture(scope="session")
def gpt2_checkpoint(checkpoint: Callable[..., Any]) -> Any:
    """The checkpoint the server serves: GPT-2's vocabulary and context, small otherwise."""
    return checkpoint(vocab_size=50257, n_positions=1024, n_embd=64, n_layer=2, n_head=4)


@pytest.fixture(scope="session")
def server(gpt2_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with run_server(gpt2_checkpoint.folder, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def own_server(gpt2_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the file's own: for what says something of its log, its memory or its engine's death."""
    with run_server(gpt2_checkpoint.folder, tmp_path_factory.mktemp("own")) as running:
        yield running


@pytest.fixture
def start_server(gpt2_checkpoint: Any, tmp_path: Path) -> Callable[..., AbstractContextManager[Server]]:
    """start_server(*arguments, **environment): one more server, for tests that break it or set it up differently."""
    return partial(run_server, gpt2_checkpoint.folder, tmp_path)


@pytest.fixture
def fresh_server(start_server: Callable[..., AbstractContextManager[Server]]) -> Iterator[Server]:
    with start_server() as running:
        yield running
