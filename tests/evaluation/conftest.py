"""One run of `zeroshot eval`'s functions on small made-up files, with a real engine process and a random checkpoint."""

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from zeroshot.evaluation.report import Outcome, Report
from zeroshot.evaluation.runner import Options, evaluate_in_process
from zeroshot.settings import Settings, load_settings
from zeroshot.text.tokenizer import Tokenizer

PROMPTS = Path(__file__).parents[2] / "prompts"
STRIDE = 100
_LINES = """
river stone house garden winter morning letter window brother sister captain music silver engine market paper village
mountain shadow question answer teacher doctor kitchen bridge yellow ancient quiet running yesterday
"""
WORDS = _LINES.split()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "evaluation: zeroshot eval against Hugging Face, with a real engine process")


class Run(NamedTuple):
    model: Any
    """A folder and the Hugging Face model in it."""
    tokenizer: Tokenizer
    settings: Settings
    data: Path
    report: Report

    def outcome(self, name: str) -> Outcome:
        return next(outcome for outcome in self.report.outcomes if outcome.name == name)

    def value(self, name: str, key: str) -> float:
        return next(row.value for row in self.outcome(name).rows if row.key == key)


def sentence(rng: random.Random, length: int) -> str:
    words = [rng.choice(WORDS) for _ in range(length)]
    words[rng.randrange(1, length)] += " ,"
    words[rng.randrange(1, length)] += " 's"
    return " ".join([words[0].capitalize(), *words[1:], "."])


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are wanted; those of cbt-ne, summarization and translation are missing."""
    folder, rng = tmp_path_factory.mktemp("data"), random.Random(0)

    def write(name: str, lines: list[Any]) -> None:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (folder / name).write_text("\n".join(texts) + "\n", encoding="utf-8")

    write("wiki.test.tokens", [" ", " = A <unk> = ", " ", *(sentence(rng, 30) for _ in range(18))])
    write("ptb.test.txt", [f" {sentence(rng, 12).lower()}" for _ in range(20)])
    write("books_heldout.jsonl", [{"text": "  ".join(sentence(rng, 9) for _ in range(n))} for n in (1, 30)])
    passages = [
        f"{sentence(rng, 12)} {rng.choice(WORDS)} {rng.choice([*WORDS, 'the', 'Quetzalcoatl'])}" for _ in range(40)
    ]
    write("lambada_test.jsonl", [{"text": passage} for passage in passages])
    blocks = []
    for _ in range(8):
        choices = rng.sample(WORDS, 10)
        lines = [f"{n} {sentence(rng, 12)}" for n in range(1, 21)]
        blocks.append("\n".join([*lines, f"21 The XXXXX was here .\t{choices[0]}\t\t{'|'.join(choices)}", ""]))
    write("cbtest_CN_valid_2000ex.txt", blocks)
    endings = [" is old.", " ran away.", "."]
    write(
        "wsc273.jsonl",
        [
            {
                "sentence": f"{sentence(rng, 6)} They say that _{rng.choice(endings)}",
                "option1": f"The {rng.choice(WORDS)}",
                "option2": f"The old {rng.choice(WORDS)}",
                "answer": rng.choice("12"),
            }
            for _ in range(30)
        ],
    )
    write("sst2_test.jsonl", [{"text": sentence(rng, 8), "label": rng.randrange(2)} for _ in range(40)])
    write("nq_open_dev.jsonl", [{"question": f"{sentence(rng, 5)}?", "answer": ["x"]} for _ in range(4)])
    return folder


@pytest.fixture(scope="session")
def run(checkpoint: Callable[..., Any], data: Path) -> Run:
    model = checkpoint(vocab_size=50257, n_positions=256, n_embd=64, n_layer=2, n_head=4, initializer_range=0.12)
    settings = load_settings(prompts=PROMPTS, num_threads=1, dtype="fp32", device="cpu")
    options = Options(data, stride=STRIDE)
    report = asyncio.run(evaluate_in_process(settings, model.folder, options, lambda name, done, total: None))
    return Run(model, Tokenizer.from_folder(model.folder), settings, data, report)
