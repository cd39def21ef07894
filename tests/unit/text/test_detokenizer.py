"""Whatever the pieces, the stream joined is the whole text cut at the first stop string."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from zeroshot.text.detokenizer import Detokenizer
from zeroshot.text.stop import StopMatch, StopMatcher
from zeroshot.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_folder(Path(__file__).parents[3] / "model_weights" / "demo")

short_texts = st.text(alphabet="ab\n", max_size=30)
stops = st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3).map(tuple)


def cut(text: str, stops: tuple[str, ...], start: int = 0) -> str:
    """The text before the stop string that is complete first after `start`, of two at once the longer."""
    for end in range(start + 1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - len(max(ending, key=len))]
    return text


@given(st.lists(short_texts), st.lists(short_texts), stops)
def test_matcher_finds_the_first_stop_however_the_text_is_cut(
    before: list[str], pieces: list[str], stops: tuple[str, ...]
) -> None:
    """`before`: where none may end yet."""
    matcher = StopMatcher(stops)
    emitted = ""
    for piece in before:
        early = matcher.feed(piece, may_end=False)
        assert isinstance(early, str)
        emitted += early
    for piece in pieces:
        result = matcher.feed(piece)
        if isinstance(result, StopMatch):
            emitted += result.text
            assert result.stop in stops
            break
        emitted += result
    else:
        emitted += matcher.flush()
    assert emitted == cut("".join(before + pieces), stops, start=len("".join(before)))


@given(st.lists(short_texts), stops)
def test_matcher_holds_back_no_more_than_it_must(pieces: list[str], stops: tuple[str, ...]) -> None:
    matcher = StopMatcher(stops)
    seen = emitted = ""
    for piece in pieces:
        result = matcher.feed(piece)
        if isinstance(result, StopMatch):
            return
        seen += piece
        emitted += result
        held = seen[len(emitted) :]
        assert seen == emitted + held
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)


@given(st.text(alphabet="aé€🌕👩‍👧\n ", max_size=20), stops)
def test_a_stream_of_tokens_joined_is_the_decoded_text(text: str, stops: tuple[str, ...]) -> None:
    token_ids = TOKENIZER.encode(text)
    detokenizer = Detokenizer(TOKENIZER, stops)
    streamed = ""
    for position, token_id in enumerate(token_ids, start=1):
        streamed += detokenizer.feed([token_id], is_last=position == len(token_ids))
    assert streamed == cut(text, stops)
    assert (detokenizer.stop is not None) == any(stop in text for stop in stops)


@given(st.text(alphabet="é€🌕日本", min_size=1, max_size=8), st.data())
def test_cut_inside_a_character_equals_decoding_at_once(text: str, data: st.DataObject) -> None:
    token_ids = TOKENIZER.encode(text)
    token_ids = token_ids[: data.draw(st.integers(1, len(token_ids)))]
    detokenizer = Detokenizer(TOKENIZER)
    streamed = "".join(
        detokenizer.feed([token_id], is_last=position == len(token_ids))
        for position, token_id in enumerate(token_ids, start=1)
    )
    assert streamed == TOKENIZER.decode(token_ids)


def test_nothing_incomplete_is_ever_sent() -> None:
    detokenizer = Detokenizer(TOKENIZER)
    for token_id in TOKENIZER.encode("🌕👩‍👩‍👧 日本")[:-1]:
        assert "�" not in detokenizer.feed([token_id], is_last=False)


def test_a_stop_inside_one_token_and_across_tokens() -> None:
    (hello,) = TOKENIZER.encode(" hello")
    assert Detokenizer(TOKENIZER, ("ll",)).feed([hello], is_last=False) == " he"
    detokenizer = Detokenizer(TOKENIZER, ("lo wor",))
    assert detokenizer.feed([hello], is_last=False) == " hel"
    assert detokenizer.feed(TOKENIZER.encode(" world"), is_last=False) == ""
    assert detokenizer.stop == "lo wor"
    assert detokenizer.feed(TOKENIZER.encode(" more"), is_last=True) == ""


def test_stop_strings_count_only_after_min_tokens() -> None:
    token_ids = TOKENIZER.encode("one. two. three.")
    dot = TOKENIZER.encode("one.")[-1]
    first, second = [position for position, token_id in enumerate(token_ids) if token_id == dot][:2]
    detokenizer = Detokenizer(TOKENIZER, (".",), min_tokens=first + 1)
    text = "".join(detokenizer.feed([token_id], is_last=False) for token_id in token_ids)
    assert text == "one. two"
    assert second > first


def test_a_stop_string_may_begin_before_min_tokens_and_end_after_it() -> None:
    newlines = [198, 198]
    assert TOKENIZER.decode(newlines) == "\n\n"
    token_ids = [*TOKENIZER.encode("one"), *newlines, *newlines, *TOKENIZER.encode("two")]
    for min_tokens, expected in ((0, "one"), (2, "one"), (3, "one\n"), (4, "one\n\n"), (5, "one\n\n\n\ntwo")):
        detokenizer = Detokenizer(TOKENIZER, ("\n\n",), min_tokens=min_tokens)
        text = "".join(detokenizer.feed([token_id], is_last=token_id == token_ids[-1]) for token_id in token_ids)
        assert text == expected


def test_special_tokens_have_no_text() -> None:
    token_ids = [*TOKENIZER.encode("a"), 50256, *TOKENIZER.encode("b")]
    assert Detokenizer(TOKENIZER).feed(token_ids, is_last=True) == "ab"
