"""Exact and near duplicates."""

from training.dedupe import drop_near_duplicates, fold, unique

WORDS = [f"word{number}" for number in range(300)]


def test_unique_keeps_the_first_and_the_order() -> None:
    assert unique(["b", "a", "b", "c", "a"]) == ["b", "a", "c"]


def test_fold_ignores_case_and_punctuation() -> None:
    assert fold("I'm HERE!") == fold("i m here")


def test_a_near_duplicate_is_dropped_and_a_different_text_is_kept() -> None:
    original = " ".join(WORDS)
    almost = " ".join([*WORDS[:150], "changed", *WORDS[151:]])
    other = " ".join(reversed(WORDS))
    assert drop_near_duplicates([original, almost, other, original]) == [original, other]


def test_half_of_a_text_is_no_duplicate() -> None:
    assert len(drop_near_duplicates([" ".join(WORDS), " ".join(WORDS[:100])])) == 2


def test_texts_shorter_than_a_shingle() -> None:
    assert drop_near_duplicates(["one two", "one two", "three"]) == ["one two", "three"]
