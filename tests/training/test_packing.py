"""Rows: every document whole, once, followed by its end; the rest is padding that nothing learns from."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.encoding import ROW_LENGTHS, by_row_length, compact
from training.packing import assign, pack
from training.vocabulary import END_OF_TEXT_ID, GPT2_VOCAB_SIZE, Vocabulary

Encoded = tuple[np.ndarray, np.ndarray]


def document(length: int, token: int = 7) -> Encoded:
    tokens = np.full(length, token, dtype=np.uint16)
    tokens[-1] = END_OF_TEXT_ID
    return tokens, np.ones(length, dtype=np.uint8)


@given(st.lists(st.integers(1, 128), max_size=400))
def test_every_document_is_in_one_row_that_holds_it(lengths: list[int]) -> None:
    rows = list(assign(lengths, 128))
    assert sorted(document for row in rows for document in row) == list(range(len(lengths)))
    assert all(sum(lengths[document] for document in row) <= 128 for row in rows)


def test_short_documents_leave_under_five_per_cent_of_padding() -> None:
    lengths = np.random.default_rng(0).integers(15, 60, size=5000).tolist()
    assert sum(lengths) / (128 * len(list(assign(lengths, 128)))) > 0.95


def test_rows_hold_documents_end_to_end_from_the_start() -> None:
    rows = pack([document(5, 1), document(3, 2), document(4, 3)], 8, END_OF_TEXT_ID)
    assert rows.tokens.tolist() == [
        [1, 1, 1, 1, END_OF_TEXT_ID, 2, 2, END_OF_TEXT_ID],
        [3, 3, 3, END_OF_TEXT_ID, *[END_OF_TEXT_ID] * 4],
    ]
    assert rows.weights.tolist() == [[1] * 8, [1, 1, 1, 1, 0, 0, 0, 0]]


def test_long_documents_go_to_long_rows_and_are_cut_only_there() -> None:
    buckets = by_row_length([document(128), document(129), document(2500)])
    assert [len(tokens) for tokens, _ in buckets["short"]] == [128]
    assert [len(tokens) for tokens, _ in buckets["long"]] == [129, 1024, 1024, 452]
    assert max(ROW_LENGTHS.values()) == 1024


def test_a_rare_token_is_read_and_never_a_target() -> None:
    counts = np.zeros(GPT2_VOCAB_SIZE, dtype=np.int64)
    counts[[5, 9]] = 100
    vocabulary = Vocabulary.from_counts(counts, min_count=10)
    assert vocabulary.kept.tolist() == [5, 9, END_OF_TEXT_ID]
    tokens = np.array([5, 6, 9, END_OF_TEXT_ID], dtype=np.uint16)
    rows = compact(pack([(tokens, np.full(4, 5, dtype=np.uint8))], 4, END_OF_TEXT_ID), vocabulary)
    assert rows.tokens.tolist() == [[0, vocabulary.shared_id, 1, 2]]
    assert rows.weights.tolist() == [[5, 0, 5, 5]]
