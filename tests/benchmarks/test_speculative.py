"""benchmarks/speculative: steps are counted, and it would notice another token."""

import pytest

from benchmarks import speculative


def test_repetition_takes_fewer_steps_and_without_guesses_each_token_is_one(checkpoint):
    found = speculative.compare(checkpoint().folder, {"text": [[1, 2, 3] * 5, [7] * 9]}, 30)
    assert found["text"]["off"] == 1
    assert set(found["text"]) == {"off", "1-gram", "2-gram", "3-gram"}
    assert all(rate >= 1 for rate in found["text"].values())


def test_another_token_is_an_error(checkpoint, monkeypatch):
    generate = speculative._generate
    calls = []

    def other(*arguments):
        calls.append(arguments)
        outputs, steps = generate(*arguments)
        return ([[0], *outputs[1:]] if len(calls) == 2 else outputs), steps

    monkeypatch.setattr(speculative, "_generate", other)
    with pytest.raises(RuntimeError, match="other tokens with n-grams of 1 on text"):
        speculative.compare(checkpoint().folder, {"text": [[1, 2, 3]]}, 5)
