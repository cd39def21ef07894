"""benchmarks/speculative: steps are counted and timed, and it would notice another token."""

import pytest

from benchmarks import speculative


@pytest.fixture(scope="module")
def engines(checkpoint):
    folder = checkpoint().folder
    return speculative.load_engines(folder, str(folder), "fp32")


def test_guessing_takes_fewer_steps_and_without_each_token_is_one(engines):
    found = speculative.compare(engines, {"text": [[1, 2, 3] * 5, [7] * 9]}, 30, num_rounds=1)["text"]
    assert set(found) == {"off", "1-gram", "2-gram", "3-gram", "draft"}
    assert found["off"] == {"tokens_per_step": 1, "speed": 1}
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
    with pytest.raises(RuntimeError, match="other tokens with 1-gram on text"):
        speculative.compare(engines, {"text": [[1, 2, 3]]}, 5, num_rounds=1)
