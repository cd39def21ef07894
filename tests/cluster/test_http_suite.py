"""The HTTP suite through the cluster: every test that needs a server, but not a process of its own for it."""

import inspect
from types import ModuleType
from typing import Any

from tests.http import (
    test_bad_input,
    test_bodies,
    test_generate,
    test_lifecycle,
    test_openapi,
    test_overload,
    test_playground,
)
from tests.http import test_tasks as test_of_tasks

MODULES = [
    *(test_bad_input, test_bodies, test_generate, test_lifecycle, test_openapi, test_overload, test_playground),
    test_of_tasks,
]
OWN_FIXTURES = {"start_server", "fresh_server", "server_with_prompts", "assets"}


def those_of_a_running_server(module: ModuleType) -> dict[str, object]:
    prefix = module.__name__.rpartition(".")[2]
    return {
        f"{prefix}_{name.removeprefix('test_')}": test
        for name, test in inspect.getmembers(module, inspect.isfunction)
        if name.startswith("test_") and "server" in (needed := inspect.signature(test).parameters.keys())
        if not needed & OWN_FIXTURES
    }


for _module in MODULES:
    globals().update(those_of_a_running_server(_module))


def test_most_of_it_is_here() -> None:
    assert sum(name.startswith("test_") for name in globals()) > 40


def test_of_many_prompts_in_one_request_none_is_forgotten(server: Any) -> None:
    """Each of them is a call of its own to a replica, and all of them wait for one at the same time."""
    for _ in range(5):
        answer = server.generate(prompt=[f"Prompt {number}" for number in range(64)], max_tokens=1)
        assert len(answer["choices"]) == 64
