"""The target of a passage, and what a stop-word filter lets through."""

import gzip
import json

import pytest

from zeroshot.errors import InvalidRequest
from zeroshot.evaluation.datasets.lambada import is_chosen, split_target, stop_token_ids
from zeroshot.types import TokenLogprob


@pytest.mark.parametrize(
    ("text", "context", "word"),
    [
        ("I can make it, Shane", "I can make it,", " Shane"),
        ('said "yes"', "said", ' "yes"'),
        ("two  spaces", "two ", " spaces"),
        ("a line\nend", "a line", "\nend"),
        ("trailing space ", "trailing", " space"),
    ],
)
def test_the_last_word_and_the_space_before_it(text, context, word):
    assert split_target(text) == (context, word)


@pytest.mark.parametrize("text", ["", "word", " word "])
def test_a_passage_of_one_word_has_no_target(text):
    with pytest.raises(InvalidRequest):
        split_target(text)


def test_the_parts_are_tokenised_as_the_whole(shared_file, tokenizer):
    content = gzip.decompress(shared_file("lambada_test.jsonl.gz").read_bytes()).decode()
    texts = [json.loads(line)["text"] for line in content.split("\n") if line]
    for text in texts[::25]:
        context, word = split_target(text)
        assert tokenizer.encode(context) + tokenizer.encode(word) == tokenizer.encode(text)


def test_stop_words_are_single_tokens(tokenizer):
    texts = {tokenizer.decode([token_id]) for token_id in stop_token_ids(tokenizer)}
    assert {" the", " The", " and", " him", " of"} <= texts
    assert all(text.startswith(" ") for text in texts)
    assert " house" not in texts


def scored(token_id: int, *top: int) -> TokenLogprob:
    """`top`: token ids, the best first."""
    rank = top.index(token_id) + 1 if token_id in top else 99
    return TokenLogprob(token_id, -float(rank), rank, [(other, -float(n)) for n, other in enumerate(top, start=1)])


def test_the_filter_takes_stop_words_out_and_nothing_else():
    stop = frozenset({1, 2})
    assert is_chosen(scored(9, 9, 1, 2), stop)
    assert is_chosen(scored(9, 1, 2, 9), stop)
    assert not is_chosen(scored(9, 1, 7, 9), stop), "7 is more probable and no stop word"
    assert not is_chosen(scored(1, 1, 9, 2), stop), "a stop word can't be chosen"
    assert not is_chosen(scored(9, 1, 2, 7), stop), "it is not among the best"
    assert is_chosen(scored(9, 9))
    assert not is_chosen(scored(9, 1, 9))


def test_a_token_that_shares_its_row_with_the_best_is_not_chosen():
    """All tokens of a shared row have rank 1; greedy decoding takes one of them."""
    token = TokenLogprob(9, -1.0, 1, [(8, -1.0), (9, -1.0)])
    assert not is_chosen(token)
