"""The house's import rule: a room imports only from rooms below it, and heavy libraries stay in their rooms."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SERVER = REPOSITORY / "server"
KERNELS = REPOSITORY / "kernels"

FLOORS = [
    {"errors", "types", "settings", "caller", "garbage_collection", "interrupt"},
    {"text"},
    {"model"},
    {"telemetry"},
    {"engine", "admission", "mailbox", "model_client"},
    {"client"},
    {"tasks"},
    {"api", "evaluation"},
    {"app", "http_protocol", "address"},
    {"serving", "cluster", "console"},
    {"cli"},
    {"__main__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

HTTP_ROOMS = {"tasks", "api", "app", "serving", "cluster"}
MAY_IMPORT = {
    "fastapi": HTTP_ROOMS,
    "starlette": HTTP_ROOMS,
    "uvicorn": {"serving", "http_protocol"},
    "pydantic": HTTP_ROOMS | {"settings"},
    "pydantic_settings": {"settings"},
    "torch": {"model", "engine"},
    "transformers": {"engine"},
    "safetensors": {"model"},
    "tokenizers": {"text"},
    "opentelemetry": {"telemetry"},
    "prometheus_client": {"telemetry", "api"},
    "llguidance": {"text", "engine"},
    "zmq": {"client", "engine"},
    "ray": {"cluster"},
    "triton": set(),
    "pickle": set(),
    "dotenv": set(),
}

# Loaded by the HTTP process, or plain Python by design: torch must not come with them.
WITHOUT_TORCH = {
    "engine": {"scheduler", "block_manager", "sequence", "request_check", "messages", "supervisor"},
    "model": {"config", "checkpoint", "hub"},
}


def module_name(path: Path) -> str:
    """server/zeroshot/api/sse.py -> zeroshot.api.sse"""
    root = SERVER if path.is_relative_to(SERVER) else KERNELS
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str | None:
    """zeroshot.api.sse -> api; the package itself is no room: anyone may read its version."""
    parts = module.split(".")
    return parts[1] if parts[0] == "zeroshot" and len(parts) > 1 else None


def imports_of(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides which room it enters"
            module = node.module or ""
            # `from zeroshot import errors` enters a room, `from zeroshot import __version__` does not.
            yield from (f"{module}.{alias.name}" for alias in node.names) if module == "zeroshot" else [module]


def server_files() -> list[Path]:
    files = sorted((SERVER / "zeroshot").rglob("*.py"))
    assert len(files) > 20
    return files


def kernel_files() -> list[Path]:
    files = sorted((KERNELS / "zeroshot_kernels").rglob("*.py"))
    assert len(files) > 5
    return files


def test_every_module_has_its_room():
    rooms = {room_of(module_name(path)) for path in server_files()} - {None}
    assert rooms <= FLOOR_OF.keys(), "new rooms: say here on which floor they are"


def test_a_room_imports_only_from_rooms_below_it():
    wrong, crossings = [], 0
    for path in server_files():
        own = room_of(module_name(path))
        for imported in imports_of(path):
            other = room_of(imported)
            if other is None or other not in FLOOR_OF or other == own:
                continue
            crossings += 1
            if own is None or FLOOR_OF[other] > FLOOR_OF[own]:
                wrong.append(f"{module_name(path)} imports {imported}")
            elif FLOOR_OF[other] == FLOOR_OF[own] and FLOOR_OF[own] != 0:
                wrong.append(f"{module_name(path)} imports {imported}, next door")
    assert wrong == []
    assert crossings > 50, "the walk saw nothing"


def test_the_client_is_the_only_door_to_the_engine():
    wrong = [
        f"{module_name(path)} imports {imported}"
        for path in server_files()
        for imported in imports_of(path)
        if room_of(module_name(path)) in HTTP_ROOMS and room_of(imported) == "engine"
    ]
    assert wrong == []


@pytest.mark.parametrize("library", MAY_IMPORT)
def test_a_library_stays_in_its_rooms(library):
    wrong = [
        f"{module_name(path)} imports {imported}"
        for path in server_files()
        for imported in imports_of(path)
        if imported.split(".")[0] == library and room_of(module_name(path)) not in MAY_IMPORT[library]
    ]
    assert wrong == []


def test_only_the_settings_read_the_environment():
    wrong = []
    for path in server_files():
        if module_name(path) == "zeroshot.settings":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"):
                wrong.append(f"{module_name(path)}:{node.lineno}")
    assert wrong == []


def test_kernels_know_nothing_of_the_server():
    wrong = [
        f"{module_name(path)} imports {imported}"
        for path in kernel_files()
        for imported in imports_of(path)
        if imported.split(".")[0] in ("zeroshot", *(MAY_IMPORT.keys() - {"torch", "triton"}))
    ]
    assert wrong == []


def test_triton_is_imported_by_kernels_and_benchmarks_only():
    allowed = {"kernel.py", "benchmark.py"}
    wrong = [
        f"{module_name(path)} imports {imported}"
        for path in kernel_files()
        for imported in imports_of(path)
        if path.name not in allowed and not path.name.endswith("_kernel.py")
        if imported.split(".")[0] == "triton" or imported.endswith((".kernel", "_kernel"))
    ]
    assert wrong == []


def test_the_training_recipe_uses_the_model_only():
    files = sorted((REPOSITORY / "training").glob("*.py"))
    assert files
    rooms = {room_of(imported) for path in files for imported in imports_of(path)} - {None}
    assert rooms <= {"model"}


def modules_without_torch() -> list[str]:
    heavy_rooms = {f"zeroshot.{room}" for room in WITHOUT_TORCH}
    plain = {f"zeroshot.{room}.{name}" for room, names in WITHOUT_TORCH.items() for name in names}
    modules = [module_name(path) for path in server_files()]
    if importlib.util.find_spec("ray") is None:  # the extra `cluster`, which not everybody has
        modules = [module for module in modules if room_of(module) != "cluster"]
    assert plain <= {*modules}
    return [module for module in modules if module in plain or module.rpartition(".")[0] not in heavy_rooms]


def test_the_http_process_loads_no_torch():
    """Every module that it may load, imported one after the other in a fresh interpreter."""
    modules = modules_without_torch()
    assert {"zeroshot.app", "zeroshot.client", "zeroshot.engine.scheduler", "zeroshot.model.checkpoint"} <= {*modules}
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'transformers', 'triton'} & sys.modules.keys()\n"
        "    if heavy: sys.exit(f'{name} loads {sorted(heavy)}')\n"
        "print(len(sys.argv) - 1)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *modules], capture_output=True, text=True, cwd=SERVER, check=False
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) == len(modules)
