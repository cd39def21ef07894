"""Which part of a generated text is kept, and whether text that is still to come could change it."""

import re

from zeroshot.types import Keep

# Escaped are the curly quotes and the CJK sentence marks, which need no space after them.
# Nothing is tried twice (possessive, and not from within a run): this is asked after every token, of the whole text.
_SENTENCE_END = re.compile(
    r"(?<![.!?])[.!?]++[\"'\u201d\u2019\u00bb)\]]*+(?=\s|$)|[\u3002\uff01\uff1f]+[\u300d\u300f\u201d]*"
)
_NO_SENTENCE_END = re.compile(r"(?:\b(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Mme|Mlle|No|vs|etc|e\.g|i\.e))\.$")
_LONGEST_ABBREVIATION = 8
"""Characters, and one before it."""
_WORD = re.compile(r"\w+(?:[-'\u2019.]\w+)*")
_JOINERS = "-'\u2019."
_SENTENCES = {"first_sentence": 1, "three_sentences": 3}


def kept(text: str, keep: Keep) -> str:
    """The part that is kept. More text never shortens it: it grows or stays as it is."""
    match keep:
        case "first_word":
            word = _WORD.search(text)
            return word.group() if word else ""
        case "first_line":
            return "".join(_first_line(text).splitlines())
        case "first_sentence" | "three_sentences":
            return first_sentences(text, _SENTENCES[keep])
    return text


def is_complete(text: str, keep: Keep) -> bool:
    """True if the same part is kept whatever follows the text."""
    match keep:
        case "first_word":
            word = _WORD.search(text)
            rest = text[word.end() :] if word else ""
            return len(rest) > 1 or (rest != "" and rest not in _JOINERS)
        case "first_line":
            line = _first_line(text)
            return bool(line) and line.splitlines() != [line]
        case "first_sentence" | "three_sentences":
            end = _sentences_end(text, _SENTENCES[keep])
            return end is not None and end < len(text)  # at the very end, "3." may become "3.5"
    return False


def first_sentences(text: str, count: int) -> str:
    """Up to the end of the count-th sentence; all of the text if it has fewer. Initials and "Mr." end none."""
    return text[: _sentences_end(text, count)]


def _first_line(text: str) -> str:
    """The first line that is not blank, with its line end; "" if there is none."""
    return next((line for line in text.splitlines(keepends=True) if line.strip()), "")


def _sentences_end(text: str, count: int) -> int | None:
    for match in _SENTENCE_END.finditer(text):
        if _NO_SENTENCE_END.search(text, max(0, match.end() - _LONGEST_ABBREVIATION), match.end()):
            continue
        count -= 1
        if count == 0:
            return match.end()
    return None
