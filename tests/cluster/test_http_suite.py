"""The HTTP suite through the cluster: every test that needs a server, but not a process of its own for it."""

import inspect
from types import ModuleType

from tests.http import test_bad_input, test_generate, test_lifecycle, test_openapi, test_overload, test_playground
from tests.http import test_tasks as test_of_tasks

MODULES = [test_bad_input, test_generate, test_lifecycle, test_openapi, test_overload, test_playground, test_of_tasks]
OWN_SERVER = {"start_server", "fresh_server", "server_with_prompts"}


def those_of_a_running_server(module: ModuleType) -> dict[str, object]:
    prefix = module.__name__.rpartition(".")[2]
    return {
        f"{prefix}_{name.removeprefix('test_')}": test
        for name, test in inspect.getmembers(module, inspect.isfunction)
        if name.startswith("test_") and "server" in (needed := inspect.signature(test).parameters.keys())
        if not needed & OWN_SERVER
    }


for _module in MODULES:
    globals().update(those_of_a_running_server(_module))


def test_most_of_it_is_here() -> None:
    assert sum(name.startswith("test_") for name in globals()) > 40
