"""Our byte table and the library's BPE against Hugging Face's GPT-2 tokenizer."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Tokenizer

from zeroshot.errors import WeightsError
from zeroshot.text.tokenizer import Tokenizer

FOLDER = Path(__file__).parents[3] / "model_weights" / "demo"
TOKENIZER = Tokenizer.from_folder(FOLDER)
HUGGING_FACE = GPT2Tokenizer(str(FOLDER / "vocab.json"), str(FOLDER / "merges.txt"))

texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)


@given(texts)
def test_encode_equals_hugging_face(text: str) -> None:
    assert TOKENIZER.encode_with_special(text) == HUGGING_FACE(text)["input_ids"]


@given(texts)
def test_decode_undoes_encode(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.lists(st.integers(0, 50255), max_size=40))
def test_decode_equals_hugging_face(token_ids: list[int]) -> None:
    expected = HUGGING_FACE.decode(token_ids, clean_up_tokenization_spaces=False)
    assert TOKENIZER.decode(token_ids) == expected


def test_end_of_text_is_special_only_where_asked() -> None:
    assert TOKENIZER.encode_with_special("<|endoftext|>") == [50256]
    assert 50256 not in TOKENIZER.encode("<|endoftext|>")
    assert TOKENIZER.decode(TOKENIZER.encode("<|endoftext|>")) == "<|endoftext|>"
    assert TOKENIZER.special_ids == {50256}
    assert TOKENIZER.vocab_size == 50257


def test_every_token_has_bytes_and_they_are_distinct() -> None:
    all_bytes = [TOKENIZER.token_bytes(token_id) for token_id in range(TOKENIZER.vocab_size)]
    assert all(all_bytes)
    assert len(set(all_bytes)) == len(all_bytes)
    assert TOKENIZER.token_bytes(60_000) == b""


def test_part_of_a_character_is_shown_as_bytes() -> None:
    parts = TOKENIZER.encode("🌕")
    assert len(parts) > 1
    assert TOKENIZER.token_text(parts[0]).startswith("bytes:\\x")
    assert TOKENIZER.token_text(TOKENIZER.encode(" moon")[0]) == " moon"


def test_missing_or_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="can't be read"):
        Tokenizer.from_folder(tmp_path)


def test_a_tokenizer_json_is_read_too(tmp_path: Path) -> None:
    HUGGING_FACE.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").exists()
    other = Tokenizer.from_folder(tmp_path)
    text = "Façade <|endoftext|> 🌕"
    assert other.encode_with_special(text) == TOKENIZER.encode_with_special(text)
    assert other.decode(other.encode(text)) == text
