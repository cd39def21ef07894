"""Nothing held out is ever trained on, whatever the wording, the direction or the number of passes."""

from pathlib import Path

import pytest

from training.corpora import CorpusError, find, read_pairs
from training.dedupe import fold
from training.mixture import Passes, build
from training.part import Part
from training.split import is_held_out

FEW = Passes(prose_passages=60, lead_summaries=20, facts=1)


@pytest.fixture(scope="module")
def parts(corpora: Path) -> dict[str, Part]:
    return {part.source: part for part in build(corpora, FEW, seed=0)}


def test_the_split_depends_on_the_folded_text_alone() -> None:
    keys = [f"Sentence number {number}." for number in range(5000)]
    hidden = [key for key in keys if is_held_out(key)]
    assert 25 <= len(hidden) <= 75
    assert [key for key in keys if is_held_out(key.upper().rstrip("."))] == hidden


def test_no_held_out_pair_is_trained_on(corpora: Path, parts: dict[str, Part]) -> None:
    pairs = read_pairs(find(corpora, "train/tatoeba_eng_fra_train.tsv.gz"))
    hidden = [pair for pair in pairs if is_held_out(pair[0])]
    assert hidden, "the invented corpus has no held-out pair: add sentences"
    trained = fold(" | ".join(document.text for document in parts["tatoeba"].train))
    for english, french in hidden:
        assert fold(english) not in trained
        assert fold(french) not in trained
    assert len(parts["tatoeba"].held_out) == 2 * len(set(hidden))


def test_exact_duplicates_are_gone(parts: dict[str, Part]) -> None:
    assert parts["tatoeba"].num_kept == parts["tatoeba"].num_read - 1


def test_the_same_book_in_two_files_is_read_once(parts: dict[str, Part]) -> None:
    passages = [document.text for document in parts["books"].train if len(document.pieces) == 1]
    assert len(passages) == len(set(passages))


def test_the_mixture_is_a_function_of_its_seed(corpora: Path, parts: dict[str, Part]) -> None:
    again = {part.source: part for part in build(corpora, FEW, seed=0)}
    other = {part.source: part for part in build(corpora, FEW, seed=1)}
    assert again == parts
    assert other["tatoeba"].train != parts["tatoeba"].train
    assert other["tatoeba"].held_out == parts["tatoeba"].held_out


def test_a_missing_corpus_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="--data"):
        build(tmp_path, FEW, seed=0)


def test_the_evaluation_sentences_are_not_in_the_training_pairs(real_data: Path) -> None:
    trained = read_pairs(find(real_data, "train/tatoeba_eng_fra_train.tsv.gz"))
    scored = read_pairs(find(real_data, "eval/tatoeba_eng_fra_heldout.tsv.gz"))
    for side in (0, 1):
        assert not {fold(pair[side]) for pair in scored} & {fold(pair[side]) for pair in trained}
