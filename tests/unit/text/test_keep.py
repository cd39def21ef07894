"""What is kept of a text that is still being written: nothing is taken back, and nothing is waited for in vain."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.text.test_detokenizer import TOKENIZER
from zeroshot.tasks.decoding import kept_text
from zeroshot.tasks.prompt_file import TextOutput
from zeroshot.text.detokenizer import Detokenizer
from zeroshot.text.keep import is_complete, kept
from zeroshot.types import Keep

KEEPS: tuple[Keep, ...] = ("all", "first_word", "first_line", "first_sentence", "three_sentences")

keeps = st.sampled_from(KEEPS)
texts = st.text(alphabet='ab3 .!?\n\r"-\u2019。」Mr\x1c', max_size=24)


@given(texts, texts, keeps, st.booleans())
def test_more_text_only_adds(text: str, more: str, keep: Keep, strip: bool) -> None:
    output = TextOutput(kind="text", keep=keep, strip=strip)
    assert kept_text(text + more, output).startswith(kept_text(text, output))


@given(texts, texts, keeps)
def test_what_is_complete_stays_as_it_is(text: str, more: str, keep: Keep) -> None:
    if is_complete(text, keep):
        assert kept(text + more, keep) == kept(text, keep)
        assert is_complete(text + more, keep)


@pytest.mark.parametrize(
    ("text", "keep", "complete"),
    [
        (" bread", "first_word", False),  # "breadth"?
        (" bread ", "first_word", True),
        (" bread.", "first_word", False),  # "bread.com"?
        (" bread. ", "first_word", True),
        (" ...", "first_word", False),
        ("a line", "first_line", False),
        ("\n  \n", "first_line", False),
        ("\n a line\n", "first_line", True),
        ("It costs 3.", "first_sentence", False),  # "3.50"?
        ("It costs 3. ", "first_sentence", True),
        ('"Stop!" ', "first_sentence", True),
        ("Mr. Smith ", "first_sentence", False),
        ("今日は寒い。", "first_sentence", False),  # "」" may follow
        ("今日は寒い。明", "first_sentence", True),
        ("One. Two. Three.", "three_sentences", False),
        ("One. Two. Three. ", "three_sentences", True),
        ("One. Two.\n", "all", False),
    ],
)
def test_one_character_more_may_be_needed_to_know(text: str, keep: Keep, complete: bool) -> None:
    assert is_complete(text, keep) is complete


@given(texts, keeps)
def test_a_choice_ends_with_the_token_that_makes_it_complete(text: str, keep: Keep) -> None:
    detokenizer = Detokenizer(TOKENIZER, keep=keep)
    token_ids = TOKENIZER.encode(text)
    streamed = ""
    for index, token_id in enumerate(token_ids):
        assert not detokenizer.has_ended
        streamed += detokenizer.feed([token_id], is_last=index == len(token_ids) - 1)
        assert detokenizer.has_ended == is_complete(streamed, keep)
        if detokenizer.has_ended:
            break
    assert text.startswith(streamed)
    assert kept(streamed, keep) == kept(text, keep)
    assert detokenizer.stop is None


def test_a_stop_string_ends_a_choice_before_what_is_kept_is_complete() -> None:
    detokenizer = Detokenizer(TOKENIZER, ("\n",), keep="first_sentence")
    text = "".join(detokenizer.feed([token_id], is_last=False) for token_id in TOKENIZER.encode("no end\nOne. Two"))
    assert (text, detokenizer.stop, detokenizer.has_ended) == ("no end", "\n", True)


def test_every_way_to_keep_a_part_takes_a_part() -> None:
    text = " Well-made. Two!\nThree? Four. "
    parts = [kept(text, keep) for keep in KEEPS]
    assert len(set(parts)) == len(KEEPS)
    assert all(re.search(re.escape(part), text) for part in parts)


def seconds_to_ask_after_each(piece: str, count: int) -> float:
    begin = time.thread_time()
    for number in range(1, count + 1):
        is_complete(piece * number + "x", "first_sentence")
    return time.thread_time() - begin


@pytest.mark.parametrize("piece", ["Mr. ", "A. ", "etc. ", "................", "said he, and "])
def test_asking_after_each_token_takes_no_more_than_reading_the_text_each_time(piece: str) -> None:
    """Four times the tokens, sixteen times the characters: a third power would be 64 times the time."""
    few, many = (min(seconds_to_ask_after_each(piece, count) for _ in range(5)) for count in (100, 400))
    assert many < 40 * few
