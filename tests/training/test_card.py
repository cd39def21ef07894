"""The model card says what was measured: it is the rendering of its reports, and no number in it is typed by hand."""

from pathlib import Path

import pytest

from training.card import render

DEMO = Path(__file__).parents[2] / "model_weights" / "demo"


def test_the_card_is_the_rendering_of_its_reports() -> None:
    if not (DEMO / "scores.json").is_file():
        pytest.skip("the bundled model has not been evaluated yet")
    assert (DEMO / "README.md").read_text(encoding="utf-8") == render(DEMO)
