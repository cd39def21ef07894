"""Models that answer what a test tells them to, and folders of data files."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zeroshot.evaluation.corpora import DataFolder
from zeroshot.evaluation.datasets import ALL
from zeroshot.evaluation.protocol import Evaluation, Measurement, Run, Scorer
from zeroshot.text.tokenizer import Tokenizer

DEMO = Path(__file__).parents[3] / "model_weights" / "demo"
SHARED = Path(__file__).parents[4] / "shared" / "data" / "eval"


class ScriptedBackend:
    """Answers each task with what `answer(name, body)` says, and remembers the bodies."""

    model, mode, max_in_flight = "scripted", "in a test", 4

    def __init__(self, answer: Callable[[str, dict[str, Any]], Any]) -> None:
        self.answer = answer
        self.bodies: list[dict[str, Any]] = []
        self.scorer: Scorer | None = None

    async def task(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self.bodies.append(body)
        await asyncio.sleep(0)
        return {"output": self.answer(name, body), "explain": {"truncated": None}}


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(DEMO)


@pytest.fixture(scope="session")
def find() -> Callable[[str], Evaluation]:
    return lambda name: next(evaluation for evaluation in ALL if evaluation.name == name)


@pytest.fixture
def scripted() -> type[ScriptedBackend]:
    return ScriptedBackend


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., Path]:
    """write_jsonl(name, records) -> the folder the file is in."""

    def write(name: str, records: list[Any]) -> Path:
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture
def measure(find: Callable[[str], Evaluation]) -> Callable[..., dict[str, Measurement]]:
    """measure(evaluation's name, backend, folder, **options of Run) -> measurements by key, each a declared metric."""

    def run(name: str, backend: ScriptedBackend, folder: Path, **options: Any) -> dict[str, Measurement]:
        evaluation = find(name)
        measured = asyncio.run(_run(evaluation, Run(backend, DataFolder(folder), **options)))
        assert {item.key for item in measured} <= {metric.key for metric in evaluation.metrics}
        return {item.key: item for item in measured}

    async def _run(evaluation: Evaluation, options: Run) -> list[Measurement]:
        return await evaluation.run(options)

    return run


@pytest.fixture
def shared_file() -> Callable[[str], Path]:
    """shared_file(name) -> a real data file beside the repository, or a skipped test."""

    def path(name: str) -> Path:
        if not (SHARED / name).is_file():
            pytest.skip(f"no {name} in {SHARED}: evaluation data is not part of the repository")
        return SHARED / name

    return path
