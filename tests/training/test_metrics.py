"""The scores' plumbing; the numbers themselves come from the real model."""

from training.decode import in_batches, pad_left
from training.metrics import transpose, windows
from training.vocabulary import END_OF_TEXT_ID


def test_references_become_columns() -> None:
    assert transpose([["a", "b"], ["c"], ["d", "e"]]) == [["a", "c", "d"], ["b", "", "e"]]


def test_windows_cover_a_text_once() -> None:
    tokens = list(range(2500))
    cut = windows([], tokens)
    assert [token for _, scored in cut for token in scored] == tokens
    assert all(given == [END_OF_TEXT_ID] and len(given) + len(scored) <= 1024 for given, scored in cut)
    assert windows([1, 2], [3]) == [([1, 2], [3])]


def test_batches_hold_every_row_once() -> None:
    lengths = [7, 2000, 3, 3000, 5000, 1, 90]
    batches = list(in_batches(lengths))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 4096 for batch in batches)


def test_padding_is_on_the_left_and_masked() -> None:
    ids, mask = pad_left([[1, 2, 3], [4]])
    assert ids.tolist() == [[1, 2, 3], [END_OF_TEXT_ID, END_OF_TEXT_ID, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
