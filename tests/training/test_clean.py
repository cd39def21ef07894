"""Cleaning: one form for spaces and quotes, tokenised text as people write it, and what is prose."""

import pytest

from training.clean import detokenise, is_prose, normalise, passages, sentences


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Où\u202f?", "Où ?"),
        ("l\u2019ami \u201ccher\u201d", 'l\'ami "cher"'),
        ("clichÃ©s", "clichés"),
        ("e\u0301te\u0301", "été"),
        ("a  b \n c", "a b\nc"),
    ],
)
def test_normalise(raw: str, clean: str) -> None:
    assert normalise(raw) == clean
    assert normalise(clean) == clean


@pytest.mark.parametrize(
    ("tokenised", "written"),
    [
        ("a warm , funny film .", "A warm, funny film."),
        ("it's ( almost ) too much . i liked it", "It's (almost) too much. I liked it"),
        ('a " new " idea . . .', 'A "new" idea...'),
    ],
)
def test_detokenise(tokenised: str, written: str) -> None:
    assert detokenise(tokenised) == written


def test_is_prose_refuses_lists_and_licences() -> None:
    prose = "He walked slowly down to the river and looked at the old boats lying there. " * 5
    assert is_prose(prose)
    assert not is_prose("1 2 3 4 " * 20)
    assert not is_prose(prose + " This text is from Project Gutenberg.")
    assert not is_prose("CHAPTER ONE. THE HOUSE. CHAPTER TWO. THE RIVER. " * 10)
    assert not is_prose("Too short.")


def test_passages_keep_paragraphs_whole() -> None:
    paragraphs = [f"Paragraph number {number} of the book." for number in range(10)]
    cut = list(passages("\n\n".join(paragraphs), max_chars=100))
    assert "\n\n".join(cut).split("\n\n") == paragraphs
    assert all(len(passage) < 150 for passage in cut)


def test_sentences() -> None:
    assert sentences('He came. "Why?" She left.') == ["He came.", '"Why?', "She left."]
