"""A server with a small random checkpoint, GPT-2's tokenizer and context, for the clients that people use."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.server import Server, run_server


@pytest.fixture(scope="session")
def gpt2_checkpoint(checkpoint: Callable[..., Any]) -> Any:
    return checkpoint(vocab_size=50257, n_positions=1024, n_embd=64, n_layer=2, n_head=4)


@pytest.fixture(scope="session")
def server(gpt2_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with run_server(gpt2_checkpoint.folder, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def model_name(gpt2_checkpoint: Any) -> str:
    return str(gpt2_checkpoint.folder.name)


@pytest.fixture(autouse=True)
def idle_afterwards(server: Server) -> Iterator[None]:
    """Whatever a client did: nothing runs on, and every block comes back."""
    yield
    server.wait_until_idle()
