"""Token ids of one choice -> its text, piece by piece, up to a stop string or to the end of what is kept."""

import codecs

from zeroshot.text.keep import is_complete
from zeroshot.text.stop import StopMatch, StopMatcher
from zeroshot.text.tokenizer import Tokenizer
from zeroshot.types import Keep


def utf8_decoder() -> codecs.IncrementalDecoder:
    """Tokens' bytes -> text: those of an unfinished character wait for the rest of it. What is no UTF-8 is U+FFFD."""
    return codecs.getincrementaldecoder("utf-8")(errors="replace")


class Detokenizer:
    """Streams text: what it returns, joined, equals decoding all tokens at once and cutting at the first stop.

    Where there are stops, or not all is kept, feed it one token at a time: a stop counts that ends after `min_tokens`,
    and what follows the end in one call is not taken back.
    """

    def __init__(
        self, tokenizer: Tokenizer, stops: tuple[str, ...] = (), *, min_tokens: int = 0, keep: Keep = "all"
    ) -> None:
        self._tokenizer = tokenizer
        self._decoder = utf8_decoder()
        self._matcher = StopMatcher(stops)
        self._tokens_before_stops = min_tokens
        self._keep, self._text = keep, ""
        self.has_ended = False
        """A stop string was met, or all that is kept is there. Nothing more comes after it."""
        self.stop: str | None = None
        """The stop string that was met."""

    def feed(self, token_ids: list[int], *, is_last: bool) -> str:
        """The text these tokens add. Special tokens have none. `is_last`: the choice has finished."""
        if self.has_ended:
            return ""
        special = self._tokenizer.special_ids
        raw = b"".join(self._tokenizer.token_bytes(token_id) for token_id in token_ids if token_id not in special)
        text = self._decoder.decode(raw, final=is_last)
        self._tokens_before_stops -= len(token_ids)
        text = self._up_to_a_stop(text, may_end=self._tokens_before_stops < 0, is_last=is_last)
        if self._keep != "all":
            self._text += text
            self.has_ended = self.has_ended or is_complete(self._text, self._keep)
        return text

    def _up_to_a_stop(self, text: str, *, may_end: bool, is_last: bool) -> str:
        result = self._matcher.feed(text, may_end=may_end)
        if isinstance(result, StopMatch):
            self.stop, self.has_ended = result.stop, True
            return result.text
        return result + self._matcher.flush() if is_last else result
