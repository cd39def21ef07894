"""The `zeroshot` command as somebody types it: real processes, a small random checkpoint."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from zeroshot.cli import app, main
from zeroshot.text.tokenizer import Tokenizer

PROMPTS = Path(__file__).parents[2] / "prompts"
Zeroshot = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def model(checkpoint: Callable[..., Any]) -> Any:
    return checkpoint(vocab_size=50257, n_positions=1024, n_embd=64, n_layer=2, n_head=4)


def zeroshot(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zeroshot", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment
    )


@pytest.fixture
def zeroshot_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Zeroshot:
    """The same without a process of its own, for what starts none either: importing torch takes most of its time."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["zeroshot", *arguments])
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
        output, messages = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), output, messages)

    return run


@pytest.mark.parametrize("command", ["serve", "deploy", "download", "generate", "task", "eval", "selfcheck"])
def test_help_has_an_example(zeroshot_here: Zeroshot, command: str) -> None:
    result = zeroshot_here(command, "--help")
    assert result.returncode == 0
    assert f"zeroshot {command}" in result.stdout
    assert "Example" in result.stdout


def test_version() -> None:
    assert zeroshot("--version").stdout.startswith("zeroshot 0.")


def test_selfcheck_passes_on_a_checkpoint_of_hugging_faces(zeroshot_here: Zeroshot, model: Any) -> None:
    result = zeroshot_here("selfcheck", "--model", str(model.folder))
    assert result.returncode == 0, result.stderr
    assert "equal within 1e-04" in result.stdout


@pytest.mark.parametrize("option", [("--temperature", "inf"), ("--temperature", "nan"), ("--top-k", "9" * 20)], ids=str)
def test_generate_takes_what_a_server_takes(zeroshot_here: Zeroshot, option: tuple[str, str]) -> None:
    result = zeroshot_here("generate", "One two", *option)
    assert (result.returncode, f"Invalid value for '{option[0]}'" in result.stderr) == (2, True), result.stderr


def test_generate_prints_what_hugging_face_generates(model: Any) -> None:
    result = zeroshot(
        "generate",
        "hello world",
        "--model",
        str(model.folder),
        "--max-tokens",
        "8",
        "--temperature",
        "0",
        "--top-k",
        "0",
    )
    assert result.returncode == 0, result.stderr
    with torch.inference_mode():
        ids = model.model.generate(torch.tensor([[31373, 995]]), max_new_tokens=8, do_sample=False)[0, 2:].tolist()
    assert result.stdout.rstrip("\n") == Tokenizer.from_folder(model.folder).decode(ids).rstrip("\n")


def test_task_on_inputs(model: Any) -> None:
    result = zeroshot("task", "sentiment", "text=Fine.", "--model", str(model.folder), "--prompts", str(PROMPTS))
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["output"] in ("positive", "negative")


def test_task_with_a_wrong_input_exits_with_1(zeroshot_here: Zeroshot, model: Any) -> None:
    result = zeroshot_here("task", "sentiment", "txt=Fine.", "--model", str(model.folder), "--prompts", str(PROMPTS))
    assert result.returncode == 1
    assert json.loads(result.stdout)["error"]["code"] == "validation_error"


@pytest.mark.parametrize("argument", ["Fine.", "txt=Fine.", "truncate=3"])
def test_task_says_what_is_wrong_with_its_inputs_before_it_loads_a_model(
    zeroshot_here: Zeroshot, model: Any, argument: str
) -> None:
    result = zeroshot_here("task", "sentiment", argument, "--model", str(model.folder), "--prompts", str(PROMPTS))
    assert result.returncode == 1
    assert "engine" not in result.stderr
    if argument != "truncate=3":  # a field there is
        said = " ".join((result.stdout + result.stderr).split())
        assert "sentiment takes text, truncate, explain, timeout, calibration, length_norm." in said


def test_task_on_a_file_keeps_order_and_takes_up_an_interrupted_run(model: Any, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "[out].jsonl"
    items = [{"text": f"Review number {i}."} if i != 3 else {"txt": "wrong"} for i in range(8)]
    source.write_text("\n".join(map(json.dumps, items)))
    arguments = ["task", "sentiment", "--input", str(source), "--output", str(target), "--model", str(model.folder)]
    first = zeroshot(*arguments, "--prompts", str(PROMPTS))
    assert first.returncode == 0
    assert f"{target}:done" in "".join(first.stderr.split())
    whole = target.read_text().splitlines()
    results = [json.loads(line) for line in whole]
    assert ["error" in result for result in results] == [i == 3 for i in range(8)]

    marked = json.dumps({"output": "kept as it was"})
    target.write_text("\n".join([marked, *whole[1:4], whole[4][:20]]))  # interrupted while writing its fifth line
    assert zeroshot(*arguments, "--prompts", str(PROMPTS)).returncode == 0
    again = target.read_text().splitlines()
    assert again[0] == marked
    assert [json.loads(line).get("output") for line in again[1:]] == [r.get("output") for r in results[1:]]

    source.write_text(json.dumps(items[0]))
    refused = zeroshot(*arguments, "--prompts", str(PROMPTS))
    assert refused.returncode == 1
    assert "another file's?" in " ".join(refused.stderr.split())


def test_task_on_a_file_goes_on_when_the_engine_is_lost(model: Any, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "On and on", "max_tokens": 40}\n' * 200)
    arguments = ["task", "complete", "--input", str(source), "--output", str(target), "--model", str(model.folder)]
    command = [sys.executable, "-m", "zeroshot", *arguments, "--prompts", str(PROMPTS)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (target.exists() and target.read_bytes().count(b"\n") > 5):
            assert process.poll() is None
            time.sleep(0.02)
        children = psutil.Process(process.pid).children()
        next(child for child in children if "zeroshot.engine.process" in child.cmdline()).kill()
        _, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    assert "starting another" in messages
    results = [json.loads(line) for line in target.read_text().splitlines()]
    assert len(results) == 200
    assert [result["error"] for result in results if "error" in result] == []


def test_task_says_what_is_wrong_with_its_files_before_it_loads_a_model(
    zeroshot_here: Zeroshot, model: Any, tmp_path: Path
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    arguments = ["task", "sentiment", "--model", str(model.folder), "--prompts", str(PROMPTS)]
    missing = zeroshot_here(*arguments, "--input", str(source), "--output", str(target))
    assert (missing.returncode, "Invalid value for '--input'" in missing.stderr) == (2, True), missing.stderr
    source.write_text('{"text": "Fine."}\n')
    nowhere = zeroshot_here(*arguments, "--input", str(source), "--output", str(tmp_path / "no" / "out.jsonl"))
    target.write_text("no JSON\n")
    other = zeroshot_here(*arguments, "--input", str(source), "--output", str(target))
    for result, words in ((nowhere, "There is no folder"), (other, "something else than results")):
        assert result.returncode == 1
        assert words in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "content",
    [
        b"notes without a line's end",
        b"notes\n",
        b'{"text": "Fine."}\n',
        b"1\n",
        b'[{"output": "a"}]\n',
        b'"output"\n',
        b'{"output": "a"}\n{"text": "the second line"}',
        b"[" * 100_000 + b"\n",
    ],
)
def test_task_leaves_a_file_alone_that_holds_no_results(
    zeroshot_here: Zeroshot, model: Any, tmp_path: Path, content: bytes
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "Fine."}\n' * 3)
    target.write_bytes(content)
    arguments = ["task", "sentiment", "--model", str(model.folder), "--prompts", str(PROMPTS)]
    result = zeroshot_here(*arguments, "--input", str(source), "--output", str(target))
    assert result.returncode == 1
    assert "Error:" in result.stderr
    assert "out.jsonl" in result.stderr
    assert target.read_bytes() == content


def test_task_does_not_write_into_its_own_input(zeroshot_here: Zeroshot, model: Any, tmp_path: Path) -> None:
    source, link = tmp_path / "in.jsonl", tmp_path / "link.jsonl"
    source.write_text('{"output": "a"}\n{"output": "b')
    link.symlink_to(source)
    arguments = ["task", "sentiment", "--model", str(model.folder), "--prompts", str(PROMPTS)]
    for target in (source, link):
        result = zeroshot_here(*arguments, "--input", str(source), "--output", str(target))
        assert (result.returncode, "at once" in result.stderr) == (1, True), result.stderr
        assert source.read_text() == '{"output": "a"}\n{"output": "b'


def test_task_writes_only_into_files(zeroshot_here: Zeroshot, model: Any, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "Fine."}\n')
    arguments = ["task", "sentiment", "--model", str(model.folder), "--prompts", str(PROMPTS)]
    for target, words in (("/dev/null", "is not a file"), (str(tmp_path), "is not a file"), ("/proc/x", "written")):
        result = zeroshot_here(*arguments, "--input", str(source), "--output", target)
        assert (result.returncode, words in result.stderr) == (1, True), result.stderr


def test_task_takes_inputs_from_one_place(zeroshot_here: Zeroshot, model: Any, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "Fine."}\n')
    arguments = ["task", "sentiment", "text=Bad.", "--model", str(model.folder), "--prompts", str(PROMPTS)]
    result = zeroshot_here(*arguments, "--input", str(source), "--output", str(target))
    assert (result.returncode, "name=value" in result.stderr) == (1, True), result.stderr
    assert not target.exists()


def test_task_says_what_is_wrong_with_a_line(model: Any, tmp_path: Path) -> None:
    """A byte order mark, as some editors put before the first line, is nothing wrong."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b'\xef\xbb\xbf{"text": "Fine."}\r\n["Fine."]\r\n{"text": \n{"text": "\xff"}\n')
    arguments = ["task", "sentiment", "--model", str(model.folder), "--prompts", str(PROMPTS)]
    result = zeroshot(*arguments, "--input", str(source), "--output", str(target))
    assert result.returncode == 0, result.stderr
    first, *others = [json.loads(line) for line in target.read_text().splitlines()]
    assert first["output"] in ("positive", "negative")
    messages = [other["error"]["message"] for other in others]
    assert [message.split(":")[0] for message in messages] == [
        "This is not a JSON object of inputs.",
        "Invalid JSON",
        "Invalid JSON",
    ]


@pytest.mark.parametrize("arguments", [["generate", b"One\xff"], ["task", "sentiment", b"text=One\xff"]])
def test_arguments_that_are_no_text(model: Any, arguments: list[Any]) -> None:
    result = zeroshot(*arguments, "--model", str(model.folder))
    assert (result.returncode, "not UTF-8" in result.stderr) == (1, True), result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture(scope="module")
def broken(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that gives NaN from the sixth token on."""
    folder = shutil.copytree(model.folder, tmp_path_factory.mktemp("broken") / "broken")
    tensors = load_file(folder / "model.safetensors")
    next(tensor for name, tensor in tensors.items() if name.endswith("wpe.weight"))[5] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_selfcheck_fails_where_there_is_nothing_to_compare(zeroshot_here: Zeroshot, broken: Path) -> None:
    """No difference is larger than the tolerance where neither model gives a number."""
    result = zeroshot_here("selfcheck", "--model", str(broken))
    assert result.returncode == 1, result.stderr
    assert "MORE than 1e-04" in result.stdout


def test_generate_says_so_when_the_model_breaks(broken: Path) -> None:
    result = zeroshot("generate", "One two", "--model", str(broken), "--max-tokens", "12")
    assert result.returncode == 1
    assert "not finite" in " ".join(result.stderr.split())


def test_an_unknown_model_is_one_line_that_says_what_to_do(zeroshot_here: Zeroshot, tmp_path: Path) -> None:
    result = zeroshot_here("selfcheck", "--model", "not a model", ZEROSHOT_WEIGHTS_DIR=str(tmp_path))
    assert result.returncode == 1
    assert "There is no model" in result.stderr


def test_a_folder_that_is_no_checkpoint_says_what_it_lacks(zeroshot_here: Zeroshot, tmp_path: Path) -> None:
    result = zeroshot_here("selfcheck", "--model", str(tmp_path))
    assert result.returncode == 1
    assert "no config.json" in " ".join(result.stderr.split())


def test_a_port_in_use_is_said_in_one_line(model: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = zeroshot("serve", "--model", str(model.folder), "--port", str(port))
    assert result.returncode == 1
    assert f"Port {port} of 127.0.0.1 is in use" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_deploy_prints_an_address_that_can_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray: Any = ModuleType("zeroshot.cluster.run")
    without_ray.deploy, without_ray.parse_settings = (lambda *_, **__: None), dict
    monkeypatch.setitem(sys.modules, without_ray.__name__, without_ray)
    result = CliRunner().invoke(app, ["deploy", "--host", "::1"])
    assert result.exit_code == 0, result.output
    assert "http://[::1]:8000/" in result.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["generate", "One two"]])
def test_a_gpu_that_is_not_there_ends_the_command_and_is_named(model: Any, command: list[str]) -> None:
    result = zeroshot(*command, "--model", str(model.folder), "--device", "cuda")
    assert result.returncode == 1
    assert "device cuda:" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_pickled_checkpoint_is_refused_with_the_way_out(tmp_path: Path, model: Any) -> None:
    (tmp_path / "config.json").write_bytes((model.folder / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    result = zeroshot("serve", "--model", str(tmp_path))
    assert result.returncode == 1
    assert "save_pretrained" in result.stderr


def test_a_broken_prompt_file_stops_the_start_and_names_its_line(tmp_path: Path, model: Any) -> None:
    (tmp_path / "bad.yaml").write_text(
        "name: bad\nsummary: Bad.\ninputs: {text: {type: string}}\ntemplate: '{nope}'\noutput: {kind: text}\n"
    )
    result = zeroshot("serve", "--model", str(model.folder), "--prompts", str(tmp_path), "--port", "0")
    assert result.returncode == 1
    assert "bad.yaml:4" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--dtype", "fp7"], {}),
        ([], {"ZEROSHOT_MAX_NUM_SEQS": "many"}),
        ([], {"ZEROSHOT_MAX_NUM_SEQS": "600", "ZEROSHOT_MAX_NUM_BATCHED_TOKENS": "500"}),
    ],
)
def test_a_wrong_setting_is_named(model: Any, arguments: list[str], environment: dict[str, str]) -> None:
    result = zeroshot("serve", "--model", str(model.folder), *arguments, **environment)
    assert result.returncode == 1
    assert "Error:" in result.stderr
    assert "dtype" in result.stderr or "max_num" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("datasets", "exit_code"),
    [("wikitext2-raw,lambada", 0), ("wikitext2-raw,books", 1), ("lambada", 1)],
    ids=["one is skipped", "one fails", "nothing is measured"],
)
def test_evals_exit_code(model: Any, tmp_path: Path, datasets: str, exit_code: int) -> None:
    (tmp_path / "wikitext2_raw_test.txt").write_text("A short text that goes on and on. " * 20)
    (tmp_path / "books_heldout.jsonl").write_text("no JSON\n")
    result = zeroshot("eval", "--data", str(tmp_path), "--datasets", datasets, "--model", str(model.folder))
    assert result.returncode == exit_code, result.stderr
    assert "Traceback" not in result.stderr
