"""The bundled model is small, complete, and does what it is bundled for."""

from pathlib import Path

import pytest
import torch

from training.decode import LanguageModel
from training.demonstrations import SENTIMENT, TRANSLATE

DEMO = Path(__file__).parents[2] / "model_weights" / "demo"


@pytest.fixture(scope="module")
def demo() -> LanguageModel:
    if not (DEMO / "model.safetensors").is_file():
        pytest.skip("model_weights/demo/model.safetensors is not there: run `python -m training.export`")
    return LanguageModel.load(DEMO)


@pytest.mark.usefixtures("demo")
def test_the_file_fits_the_repository() -> None:
    assert (DEMO / "model.safetensors").stat().st_size < 36 * 10**6


def test_it_translates(demo: LanguageModel) -> None:
    [line] = demo.complete_lines([TRANSLATE.format(source="English", target="French", text="I am hungry.")])
    assert line == "J'ai faim."


@torch.inference_mode()
def test_tokens_without_a_row_are_hardly_ever_sampled(demo: LanguageModel) -> None:
    """All 30,000 copies of the shared row together have less than one chance in 200, and one in 50 after gibberish."""
    texts = {
        TRANSLATE.format(source="English", target="French", text="Where is the station?"): 1 / 200,
        SENTIMENT.format(text="A warm, funny film."): 1 / 200,
        "It was a dark night, and the wind": 1 / 200,
        "\U0001f600 \u6f22\u5b57 zxqv": 1 / 50,
    }
    for text, limit in texts.items():
        probabilities = demo.model(torch.tensor([demo.encode(text)])).logits[0, -1].softmax(-1)
        assert float(probabilities[~demo.has_own_row()].sum()) < limit


@torch.inference_mode()
def test_the_whole_context_works(demo: LanguageModel) -> None:
    ids = demo.encode("The old man looked at the sea and said nothing. " * 200)[:1024]
    logits = demo.model(torch.tensor([ids])).logits
    assert bool(torch.isfinite(logits).all())
