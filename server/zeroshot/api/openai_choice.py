"""What one choice got -> OpenAI's `choices` item for completions, whole or piece by piece."""

from dataclasses import dataclass
from typing import Any

from zeroshot.model_client import ChoiceDelta
from zeroshot.text.detokenizer import utf8_decoder
from zeroshot.text.tokenizer import Tokenizer
from zeroshot.types import TokenLogprob


@dataclass(frozen=True, slots=True)
class ChoiceFormat:
    """What a request wants to see of its choices."""

    echo: bool = False
    has_logprobs: bool = False
    has_token_ids: bool = False
    tokens_as_ids: bool = False
    """Tokens as `token_id:464` instead of their text."""
    keeps_stop: bool = False


class ChoiceWriter:
    """The pieces of one choice, in order. All of them joined say the same as one piece made of all deltas."""

    def __init__(self, index: int, prompt_ids: list[int], tokenizer: Tokenizer, wanted: ChoiceFormat) -> None:
        self._index = index
        self._prompt_ids = prompt_ids
        self._tokenizer = tokenizer
        self._wanted = wanted
        self._has_begun = False
        self._logprobs = _LogprobsWriter(tokenizer, begins_in_prompt=wanted.echo, tokens_as_ids=wanted.tokens_as_ids)

    def piece(self, delta: ChoiceDelta) -> dict[str, Any]:
        wanted, is_first = self._wanted, not self._has_begun
        self._has_begun = True
        text = delta.text
        if wanted.echo and is_first:
            text = self._tokenizer.decode(self._prompt_ids) + text
        if wanted.keeps_stop and isinstance(delta.stop_reason, str):
            text += delta.stop_reason
        piece: dict[str, Any] = {
            "index": self._index,
            "text": text,
            "logprobs": self._logprobs_piece(delta, is_first=is_first) if wanted.has_logprobs else None,
            "finish_reason": delta.finish_reason,
            "stop_reason": delta.stop_reason,
        }
        if wanted.has_token_ids:
            piece["token_ids"] = delta.token_ids
            if is_first:
                piece["prompt_token_ids"] = self._prompt_ids
        return piece

    def has_news(self, delta: ChoiceDelta) -> bool:
        """False for a delta that would make an empty piece."""
        is_echo_due = self._wanted.echo and not self._has_begun
        has_details = self._wanted.has_logprobs or self._wanted.has_token_ids
        return bool(delta.text or delta.finish_reason or is_echo_due or has_details)

    def _logprobs_piece(self, delta: ChoiceDelta, *, is_first: bool) -> dict[str, Any]:
        writer = self._logprobs
        if self._wanted.echo:
            if is_first:
                writer.add_first(self._prompt_ids[0])
            for logprob in delta.prompt_logprobs:
                writer.add(logprob)
            if delta.logprobs:
                writer.end_prompt()
        for logprob in delta.logprobs:
            writer.add(logprob)
        return writer.take()


class _LogprobsWriter:
    """OpenAI's four parallel lists. `text_offset` counts the characters of `text` before each token."""

    def __init__(self, tokenizer: Tokenizer, *, begins_in_prompt: bool, tokens_as_ids: bool) -> None:
        self._tokenizer = tokenizer
        self._tokens_as_ids = tokens_as_ids
        self._offset = 0
        self._is_in_prompt = begins_in_prompt
        self._decoder = utf8_decoder()
        self._lists = _empty_lists()

    def add_first(self, token_id: int) -> None:
        """The prompt's first token: nothing precedes it, so it has no log-probability."""
        self._add(token_id, None, None)

    def add(self, logprob: TokenLogprob) -> None:
        top = {self._name(token_id): value for token_id, value in logprob.top}
        top[self._name(logprob.token_id)] = logprob.logprob
        self._add(logprob.token_id, logprob.logprob, top)

    def end_prompt(self) -> None:
        """The completion is decoded by itself: a character can't begin in the prompt and end in the completion."""
        if self._is_in_prompt:
            self._offset += len(self._decoder.decode(b"", final=True))
            self._is_in_prompt = False

    def take(self) -> dict[str, Any]:
        """What was added since the last time."""
        taken, self._lists = self._lists, _empty_lists()
        return taken

    def _add(self, token_id: int, logprob: float | None, top: dict[str, float] | None) -> None:
        self._lists["tokens"].append(self._name(token_id))
        self._lists["token_logprobs"].append(logprob)
        self._lists["top_logprobs"].append(top)
        self._lists["text_offset"].append(self._offset)
        if self._is_in_prompt or token_id not in self._tokenizer.special_ids:  # a completion's text leaves those out
            self._offset += len(self._decoder.decode(self._tokenizer.token_bytes(token_id)))

    def _name(self, token_id: int) -> str:
        return f"token_id:{token_id}" if self._tokens_as_ids else self._tokenizer.token_text(token_id)


def _empty_lists() -> dict[str, list[Any]]:
    return {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
