"""benchmarks/speculative: steps are counted and timed, and it would notice another token."""

import json
from pathlib import Path

import pytest

from benchmarks import speculative
from benchmarks.speculative import Case

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def engines(checkpoint):
    folder = checkpoint().folder
    return speculative.load_engines(folder, str(folder), "fp32")


def test_guessing_takes_fewer_steps_and_without_each_token_is_one(engines):
    prompts = [[1, 2, 3] * 5, [7] * 9]
    cases = {"one": Case(prompts), "two": Case(prompts, at_once=2), "drawn": Case(prompts, temperature=1.0)}
    gains = speculative.compare(engines, cases, 30, num_rounds=1)
    assert set(gains) == set(cases)
    assert all(gain["off"] == {"tokens_per_step": 1, "speed": 1} for gain in gains.values())
    assert gains["two"]["2-gram"]["tokens_per_step"] > 1
    found = gains["one"]
    assert set(found) == {"off", "1-gram", "2-gram", "3-gram", "draft"}
    assert all(gain["tokens_per_step"] >= 1 and gain["speed"] > 0 for gain in found.values())
    assert found["draft"]["tokens_per_step"] > 4, "the draft is the model: four guesses a step, always right"


def test_another_token_is_an_error(engines, monkeypatch):
    generate = speculative._generate
    calls = []

    def other(*arguments):
        calls.append(arguments)
        outputs, steps = generate(*arguments)
        return ([[0], *outputs[1:]] if len(calls) == 2 else outputs), steps

    monkeypatch.setattr(speculative, "_generate", other)
    with pytest.raises(RuntimeError, match="other tokens with 1-gram, text"):
        speculative.compare(engines, {"text": Case([[1, 2, 3]])}, 5, num_rounds=1)


def test_the_docs_say_what_the_result_file_says():
    result = json.loads((ROOT / "benchmarks" / "results" / "speculative.json").read_text())
    assert speculative.markdown_table(result) in (ROOT / "docs" / "cpu.md").read_text()
