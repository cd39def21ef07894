"""Invertible de-tokenisers: from the spaced-out tokens of a corpus to text as people write it, and back.

Radford et al. 2019, section 3.1: tokenisation artefacts are removed, and since that can be undone, the probability of
the text is still the probability of the data set. The paper doesn't publish its rules; these are ours.

Invertible by construction, given the corpus's vocabulary. Rules say which neighbouring tokens to write without a space
between them; such a chunk is written that way only if `split` gives exactly its tokens back, otherwise they stay apart.
A chunk that is itself a token of the vocabulary ("Mr.") always means that token.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

_CLITICS = ("n't", "N'T", "'s", "'S", "'t", "'re", "'ve", "'ll", "'d", "'m", "'")
_CLOSING = (",", ".", ":", ";", "!", "?", "%", ")", "]", "}")
_OPENING = ("(", "[", "{", "$", "#", "£", "¥")
_INNER = {"@-@": "-", "@,@": ",", "@.@": "."}

_RULES = ("=",)  # around a heading, as many as its level
_HEADS = (*_OPENING, *_RULES, '"')
_TAILS = (*_CLITICS, *_CLOSING, '"')
# Between letters or digits, or beside <unk>, which may stand for either.
_MIDDLE = re.compile(r"(?<=[\w>])-(?=[\w<])|(?<=[\d>])[,.](?=[\d<])")


class Detokenizer:
    """`words`: all tokens of the corpus, in any order, as often as they come."""

    def __init__(self, words: Iterable[str]) -> None:
        self.vocabulary = frozenset(words)
        self.num_kept = 0
        """Chunks that stayed apart so far, because their tokens could not be found again."""

    def detokenize(self, line: str) -> str:
        """Tokens with white space between them -> text."""
        return " ".join(self._write(group) for group in _groups(line.split()))

    def tokenize(self, text: str) -> str:
        """The inverse: tokens with single spaces between them, for lines whose tokens are in the vocabulary."""
        return " ".join(token for chunk in text.split() for token in self.split(chunk))

    def split(self, chunk: str) -> list[str]:
        """The tokens that a chunk without spaces stands for."""
        if chunk in self.vocabulary or not chunk:
            return [chunk] if chunk else []
        for head in _HEADS:
            if chunk.startswith(head) and head in self.vocabulary:
                return [head, *self.split(chunk[len(head) :])]
        for tail in _TAILS:
            if chunk.endswith(tail) and tail in self.vocabulary:
                return [*self.split(chunk[: -len(tail)]), tail]
        return [piece for piece in self._split_middle(chunk) if piece]

    def _split_middle(self, chunk: str) -> Iterator[str]:
        start = 0
        for match in _MIDDLE.finditer(chunk):
            yield chunk[start : match.start()]
            yield f"@{match.group()}@"
            start = match.end()
        yield chunk[start:]

    def _write(self, group: Sequence[str]) -> str:
        chunk = "".join(_INNER.get(token, token) for token in group)
        if self.split(chunk) == list(group):
            return chunk
        self.num_kept += 1
        return " ".join(group)


def _groups(tokens: Sequence[str]) -> Iterator[list[str]]:
    """Runs of tokens to be written without spaces. Every second quotation mark closes."""
    group: list[str] = []
    is_open = {'"': False}
    glue = False  # to what comes next
    for token in tokens:
        closes = token in _CLOSING or token in _CLITICS or token in _INNER
        if token in is_open:
            closes, is_open[token] = is_open[token], not is_open[token]
        if token in _RULES:
            closes = group[-1:] == [token]
        if group and not (glue or closes):
            yield group
            group = []
        group.append(token)
        glue = token in _OPENING or token in _INNER or is_open.get(token, False)
    if group:
        yield group
