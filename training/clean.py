"""Heuristic cleaning: one form for whitespace and quotes, and a rule for what counts as prose.

Radford et al. 2019 (section 2.1) relied on heuristics to clean WebText; these are ours, each for a defect seen in the
corpora at hand.
"""

import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress

# No-break and thin spaces, which French puts before "?" and "!"; GPT-2's BPE needs two or three tokens for each.
_ODD_SPACES = re.compile("[\u00a0\u2007\u2009\u200a\u202f\u205f\u3000\t]")
_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff\u00ad]")
_CURLY_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2026": "..."})
_MOJIBAKE = re.compile("[\u00c2\u00c3][\u0080-\u00bf]")
_BOILERPLATE = re.compile(r"project gutenberg|transcriber|all rights reserved|copyright|isbn|https?://", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]*[A-Z])")


def normalise(text: str) -> str:
    """NFC, plain spaces and straight quotes; UTF-8 that was once read as Latin-1 is repaired."""
    if _MOJIBAKE.search(text):
        with suppress(UnicodeError):  # mixed encodings: keep the text, the filters below judge it
            text = text.encode("latin-1").decode("utf-8")
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text)).translate(_CURLY_QUOTES)
    text = _ODD_SPACES.sub(" ", text.replace("\r\n", "\n"))
    return re.sub(r" *\n *", "\n", re.sub(r" {2,}", " ", text)).strip()


def detokenise(text: str) -> str:
    """Undo Penn-Treebank spacing: `a warm , funny film .` -> `A warm, funny film.`

    The GPT-2 paper scores such corpora through invertible de-tokenisers for the same reason (section 3.1): a space
    before each comma is not how people write.
    """
    text = re.sub(r" ([,.;:!?%)\]])", r"\1", text)
    text = re.sub(r"([(\[$]) ", r"\1", text)
    text = re.sub(r" (n't|'s|'re|'ve|'ll|'d|'m)\b", r"\1", text)
    text = re.sub(r'" ([^"]*?) "', r'"\1"', text)
    text = re.sub(r"(?:\. ){2}\.|(?:\.){3,}", "...", text)
    text = re.sub(r" +", " ", text).strip()
    text = re.sub(r"\bi\b(?!\.)", "I", text)
    return re.sub(r"(^|[.!?] )([a-z])", lambda match: match.group(1) + match.group(2).upper(), text)


def sentences(text: str) -> list[str]:
    """Split at full stops followed by a capital; good enough for prose."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def is_prose(text: str) -> bool:
    """Running text, not a table of contents, a list, verse in columns, or a licence notice."""
    words = text.split()
    if len(words) < 40 or _BOILERPLATE.search(text):
        return False
    letters = sum(character.isalpha() or character == " " for character in text)
    capitals = sum(word.isupper() and len(word) > 1 for word in words)
    longest = max(map(len, words))
    return letters / len(text) > 0.85 and capitals / len(words) < 0.1 and longest < 40


def passages(text: str, max_chars: int) -> Iterator[str]:
    """Cut a book into passages of whole paragraphs, each up to about `max_chars` characters long."""
    passage: list[str] = []
    size = 0
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph = paragraph.replace("\n", " ").strip()
        if passage and size + len(paragraph) > max_chars:
            yield "\n\n".join(passage)
            passage, size = [], 0
        if paragraph:
            passage.append(paragraph)
            size += len(paragraph)
    if passage:
        yield "\n\n".join(passage)
