"""Every op has kernel, reference, benchmark and tests, and the kernel is called like its reference."""

import ast
from pathlib import Path

import pytest

import zeroshot_kernels

OPS_FOLDER = Path(zeroshot_kernels.__file__).parent
OPS = sorted(path.name for path in OPS_FOLDER.iterdir() if (path / "__init__.py").exists() and path.name != "cpu")
MAY_IMPORT_TRITON = {"kernel.py", "benchmark.py"}
MAX_KERNEL_LINES = 120


def functions(path):
    return {node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def is_kernel(function):
    return any(ast.unparse(decorator).startswith("triton.jit") for decorator in function.decorator_list)


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_there_are_ops():
    assert {"decode_attention", "prefill_attention", "sampling"} <= set(OPS)


@pytest.mark.parametrize("op", OPS)
def test_an_op_has_all_its_files(op):
    """And no others, but parts of its kernel that have names of their own."""
    names = {path.name for path in (OPS_FOLDER / op).glob("*.py")}
    assert {name for name in names if not name.endswith("_kernel.py")} == {
        "__init__.py",
        "benchmark.py",
        "kernel.py",
        "reference.py",
    }
    assert (Path(__file__).parent / f"test_{op}.py").exists()


@pytest.mark.parametrize("op", OPS)
def test_launcher_and_reference_have_the_same_arguments(op):
    """The launcher may have more by keyword: buffers to write to, and how it is launched."""
    launcher = functions(OPS_FOLDER / op / "kernel.py")[op]
    reference = functions(OPS_FOLDER / op / "reference.py")[f"{op}_reference"]
    assert [argument.arg for argument in launcher.args.args] == [argument.arg for argument in reference.args.args]
    only_its = {"out", "workspace", "logits", "residual_out", "use_pdl"}
    by_keyword = {argument.arg for argument in reference.args.kwonlyargs}
    assert {argument.arg for argument in launcher.args.kwonlyargs} - only_its == by_keyword
    assert ast.get_docstring(launcher)
    assert ast.get_docstring(reference)


@pytest.mark.parametrize("op", OPS)
def test_kernels_come_after_the_launcher_and_are_short(op):
    found = functions(OPS_FOLDER / op / "kernel.py")
    kernels = [function for function in found.values() if is_kernel(function)]
    assert kernels
    for kernel in kernels:
        assert kernel.lineno > found[op].lineno
        assert kernel.end_lineno - kernel.lineno < MAX_KERNEL_LINES, kernel.name


@pytest.mark.parametrize("path", sorted(OPS_FOLDER.rglob("*.py")), ids=lambda path: str(path.relative_to(OPS_FOLDER)))
def test_only_kernels_and_benchmarks_import_triton(path):
    if path.name not in MAY_IMPORT_TRITON and not path.name.endswith("_kernel.py"):
        names = imported(path)
        reachable = [name for name in names if name.split(".")[0] == "triton" or name.endswith((".kernel", "_kernel"))]
        assert reachable == []
