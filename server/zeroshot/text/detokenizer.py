"""Token ids of one choice -> its text, piece by piece, up to a stop string."""

import codecs

from zeroshot.text.stop import StopMatch, StopMatcher
from zeroshot.text.tokenizer import Tokenizer


class Detokenizer:
    """Streams text: what it returns, joined, equals decoding all tokens at once and cutting at the first stop.

    Where there are stops, feed it one token at a time: a stop counts from the token after `min_tokens` on, and what
    follows it in one call is not taken back.
    Bytes of an unfinished character wait for the rest of it (Python's incremental UTF-8 decoder).
    """

    def __init__(self, tokenizer: Tokenizer, stops: tuple[str, ...] = (), *, min_tokens: int = 0) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._matcher = StopMatcher(stops)
        self._tokens_before_stops = min_tokens
        self.stop: str | None = None
        """The stop string that was met. Nothing more comes after it."""

    def feed(self, token_ids: list[int], *, is_last: bool) -> str:
        """The text these tokens add. Special tokens have none. `is_last`: the choice has finished."""
        if self.stop is not None:
            return ""
        special = self._tokenizer.special_ids
        raw = b"".join(self._tokenizer.token_bytes(token_id) for token_id in token_ids if token_id not in special)
        text = self._decoder.decode(raw, final=is_last)
        self._tokens_before_stops -= len(token_ids)
        if self._tokens_before_stops >= 0:
            return text
        result = self._matcher.feed(text)
        if isinstance(result, StopMatch):
            self.stop = result.stop
            return result.text
        return result + self._matcher.flush() if is_last else result
