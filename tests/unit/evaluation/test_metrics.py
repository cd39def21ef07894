"""Exact match as SQuAD's own script defines it; proportions with their standard error."""

import math

import pytest

from zeroshot.evaluation.corpora import Skipped
from zeroshot.evaluation.metrics import accuracy, is_exact_match, library, normalize_answer
from zeroshot.evaluation.rouge import rouge, sentences


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The Eiffel Tower.", "eiffel tower"),
        ("  an   apple,a  pear ", "applea pear"),
        ("14 December 1972 (UTC)", "14 december 1972 utc"),
        ("Anne of the Thousand Days", "anne of thousand days"),
        ("theatre", "theatre"),
        ("the", ""),
    ],
)
def test_normalized_answers(text, normalized):
    assert normalize_answer(text) == normalized


def test_exact_match():
    assert is_exact_match("the Beatles!", ["Queen", "Beatles"])
    assert not is_exact_match("Beatle", ["Beatles"])
    assert not is_exact_match("", [""])
    assert not is_exact_match("The", ["a"])


def test_accuracy_is_a_percentage_with_its_standard_error():
    measured = accuracy("key", [True, True, True, False], total=9)
    assert (measured.value, measured.count, measured.total) == (75, 4, 9)
    assert measured.stderr == pytest.approx(100 * math.sqrt(0.75 * 0.25 / 4))


def test_a_missing_library_is_a_reason_to_skip():
    with pytest.raises(Skipped, match="pip install not-there"):
        library("not_there_at_all", "not-there")


def test_sentences_end_at_full_stops_and_line_ends():
    assert sentences("Mr. Smith came. He saw!\nNo stop") == ["Mr. Smith came.", "He saw!", "No stop"]
    assert sentences("") == []


def test_rouge_against_values_computed_by_hand():
    pytest.importorskip("rouge_score", reason="rouge-score is not installed")
    # unigrams 3 of 4 and 3 of 3; bigrams 1 of 3 and 1 of 2 (the cat); longest common subsequence: the cat down
    scores = rouge(["the cat lay down"], ["the cat down"])
    assert scores["rouge1"] == pytest.approx(100 * 2 * 0.75 * 1 / 1.75)
    assert scores["rouge2"] == pytest.approx(100 * 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert scores["rougeL"] == pytest.approx(scores["rouge1"])
    assert scores["rouge_avg"] == pytest.approx((scores["rouge1"] + scores["rouge2"] + scores["rougeL"]) / 3)
    assert rouge(["jumping"], ["jumps"])["rouge1"] == 100  # stemmed
