"""Windows must score every token once, with as much context as promised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroshot.evaluation.perplexity import exponential, windows

FIRST = -1


@given(st.integers(0, 60), st.integers(2, 20), st.data())
def test_every_token_is_scored_once_and_in_order(num_tokens, max_len, data):
    stride = data.draw(st.integers(1, max_len - 1))
    ids = list(range(num_tokens))
    scored = []
    for index, window in enumerate(windows(ids, FIRST, max_len, stride)):
        assert len(window.token_ids) <= max_len
        assert list(window.token_ids) == [FIRST, *ids][(index * stride) : (index * stride) + len(window.token_ids)]
        assert window.start >= (1 if index == 0 else max_len - stride)
        scored += window.token_ids[window.start :]
    assert scored == ids


def test_a_short_document_is_one_window():
    (window,) = windows([5, 6, 7], FIRST, 4, 2)
    assert (window.token_ids, window.start) == ([FIRST, 5, 6, 7], 1)


@pytest.mark.parametrize("stride", [0, 8, 9, -1])
def test_a_stride_that_leaves_tokens_out_is_refused(stride):
    with pytest.raises(ValueError, match="stride"):
        list(windows([1, 2, 3], FIRST, 8, stride))


def test_a_perplexity_is_always_a_number():
    assert exponential(1e9) < float("inf")
