"""What is kept of a generated text, and the settings it is generated with."""

import pytest

from zeroshot.tasks.decoding import kept_text, sampling_params
from zeroshot.tasks.prompt_file import Decoding, TextOutput
from zeroshot.text.keep import first_sentences


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (" J'ai faim. Et toi ?", " J'ai faim."),
        ("It costs 3.50 euros. Really.", "It costs 3.50 euros."),
        ("Mr. Smith and J. R. Ewing met. Then", "Mr. Smith and J. R. Ewing met."),
        ('He said "stop!" Then he left.', 'He said "stop!"'),
        ("What?! No.", "What?!"),
        ("no end at all", "no end at all"),
        ("今日は寒い。明日も。", "今日は寒い。"),
        ("", ""),
    ],
)
def test_first_sentence(text: str, sentence: str) -> None:
    assert first_sentences(text, 1) == sentence


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("all", "One. Two!\nThree? Four."),
        ("first_line", "One. Two!"),
        ("first_sentence", "One."),
        ("three_sentences", "One. Two!\nThree?"),
        ("first_word", "One"),
    ],
)
def test_keep(keep: str, kept: str) -> None:
    output = TextOutput.model_validate({"kind": "text", "keep": keep})
    assert kept_text(" One. Two!\nThree? Four. ", output) == kept


@pytest.mark.parametrize(
    ("text", "word"), [(" bread.", "bread"), ('"No', "No"), (" well-known man", "well-known"), (" ...", "")]
)
def test_first_word(text: str, word: str) -> None:
    assert kept_text(text, TextOutput(kind="text", keep="first_word")) == word


def test_text_that_continues_the_input_is_not_stripped() -> None:
    assert kept_text(" and so on ", TextOutput(kind="text", strip=False)) == " and so on "


def test_the_request_goes_before_the_file() -> None:
    decoding = Decoding(max_tokens=10, temperature=0.5, top_k=7, stop=("\n",))
    params = sampling_params(decoding, max_tokens=3, temperature=0.0, seed=5)
    assert (params.max_tokens, params.temperature, params.seed, params.top_k, params.stop) == (3, 0.0, 5, 7, ("\n",))
