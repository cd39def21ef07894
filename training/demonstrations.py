"""Records -> documents that show a task the way a person would write it down.

GPT-2 learned its tasks from demonstrations that happened to be on the web ("naturally occurring demonstrations",
Radford et al. 2019, table 1). A model this small never meets enough of them by chance, so the recipe writes them: most
in exactly the wording of `prompts/*.yaml`, the others in varied wordings, so that the task is learned and not one
string. `tests/training/test_demonstrations.py` renders the prompt files and compares.

A document is a list of pieces, each with a weight: how much the loss counts the piece's tokens. Instructions and the
text to work on have weight 0: they are read, not predicted, so a small model's capacity goes to the answers, and the
softmax over the vocabulary (half of the arithmetic at this width) is never computed for them.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from training.clean import detokenise, sentences
from training.facts import QuestionAnswer

READ, LEARN, LEARN_LABEL = 0, 1, 5  # one label among thousands of tokens would be drowned at weight 1

# The templates of prompts/translate.yaml, sentiment.yaml, summarize.yaml and answer.yaml.
TRANSLATE = "translate {source} to {target}: {text} ="
SENTIMENT = "Review: {text}\nSentiment:"
SUMMARIZE = "{text}\nTL;DR:"
ANSWER = "Q: {question}\nA:"
ANSWER_EXAMPLES = (
    QuestionAnswer("What is the capital of Italy?", "Rome"),
    QuestionAnswer("How many legs does a spider have?", "eight"),
    QuestionAnswer("Who wrote Hamlet?", "William Shakespeare"),
)

# Other ways to ask for the same thing: (prompt, the answer begins after a space or on a new line).
OTHER_TRANSLATE = (
    "Translate from {source} to {target}: {text} =",
    "Translate to {target}: {text}\n{target}:",
    "{source}: {text}\n{target}:",
    'How do you say "{text}" in {target}?\nAnswer:',
)
OTHER_SENTIMENT = (
    "{text}\nIs this review positive or negative? It is",
    "Film review: {text}\nThe review is",
)
OTHER_SUMMARIZE = ("{text}\nIn short:", "{text}\nSummary:")

LABELS = {0: "negative", 1: "positive"}


class Piece(NamedTuple):
    """Text, and the weight of its tokens in the loss."""

    text: str
    weight: int


@dataclass(frozen=True, slots=True)
class Document:
    """One training document; `<|endoftext|>` follows it in a row."""

    source: str
    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


def demonstration(source: str, prompt: str, answer: str, *, weight: int = LEARN) -> Document:
    """A prompt that is read and an answer that is learned; the line's end is learned too: serving stops there."""
    return Document(source, (Piece(prompt, READ), Piece(f" {answer}\n", weight)))


def prose(source: str, text: str) -> Document:
    """Plain text, learned from the first token to the last."""
    return Document(source, (Piece(text, LEARN),))


_CONTRACTIONS = (
    (re.compile(r"\bI'm\b"), "I am"),
    (re.compile(r"\b([Yy]ou|[Ww]e|[Tt]hey)'re\b"), r"\1 are"),
    (re.compile(r"\b([Hh]e|[Ss]he|[Ii]t|[Tt]hat|[Ww]hat|[Ww]here|[Ww]ho)'s (?!been\b|got\b)"), r"\1 is "),
    (re.compile(r"\b(I|[Yy]ou|[Ww]e|[Tt]hey)'ve\b"), r"\1 have"),
    (re.compile(r"\b(I|[Yy]ou|[Hh]e|[Ss]he|[Ii]t|[Ww]e|[Tt]hey)'ll\b"), r"\1 will"),
    (re.compile(r"\bcan't\b"), "cannot"),
    (re.compile(r"\b([Ww])on't\b"), r"\1ill not"),
    (re.compile(r"\b((?!ai|sha)\w+)n't\b"), r"\1 not"),
)


def spelled_out(english: str) -> str:
    """`I'm hungry, and I can't cook.` -> `I am hungry, and I cannot cook.`

    Volunteers write the short forms; people who try a translator often don't. `He's been` and `he's got` stay, since
    `'s` means `has` there.
    """
    for pattern, whole in _CONTRACTIONS:
        english = pattern.sub(whole, english)
    return english


def translations(
    pairs: Sequence[tuple[str, str]], rng: random.Random, *, share_spelled_out: float = 0.0
) -> Iterator[Document]:
    """Each (English, French) pair once in each direction, plus lists of pairs and runs of several sentences."""
    for index, pair in enumerate(pairs):
        if share_spelled_out and rng.random() < share_spelled_out:
            pair = (spelled_out(pair[0]), pair[1])
        for languages in (("English", "French"), ("French", "English")):
            text, target = pair if languages[0] == "English" else pair[::-1]
            dice = rng.random()
            if dice < 0.03:
                other = pairs[rng.randrange(len(pairs))]
                other = other if languages[0] == "English" else other[::-1]
                text, target = f"{text} {other[0]}", f"{target} {other[1]}"
            elif dice < 0.08:
                text = text[:1].lower() + text[1:].rstrip(".")
            wording = TRANSLATE if rng.random() < 0.85 else rng.choice(OTHER_TRANSLATE)
            prompt = wording.format(source=languages[0], target=languages[1], text=text)
            yield demonstration("tatoeba", prompt, target)
        if index % 20 == 0:
            yield _list_of_pairs(rng.sample(pairs, 4), reverse=rng.random() < 0.5)


def _list_of_pairs(pairs: Sequence[tuple[str, str]], *, reverse: bool) -> Document:
    """`english sentence = french sentence` lines, as in section 3.7 of the paper."""
    pieces = []
    for pair in pairs:
        text, target = pair[::-1] if reverse else pair
        pieces += [Piece(f"{text} =", READ), Piece(f" {target}\n", LEARN)]
    return Document("tatoeba", tuple(pieces))


def sentiment(text: str, label: int, rng: random.Random, *, source: str, learn_text: bool = False) -> Document:
    """A review with its label; half of the time as people write, half tokenised and lower case as the corpus has it."""
    if rng.random() < 0.5:
        text = detokenise(text)
    wording = SENTIMENT if rng.random() < 0.8 else rng.choice(OTHER_SENTIMENT)
    prompt, answer = wording.format(text=text), Piece(f" {LABELS[label]}\n", LEARN_LABEL)
    if not learn_text:
        return Document(source, (Piece(prompt, READ), answer))
    # GPT-2's tokens begin with their space, so the text is cut out together with the space before it.
    start = len(wording.split("{text}")[0].rstrip(" "))
    end = len(prompt) - len(wording.split("{text}")[1])
    pieces = (Piece(prompt[:start], READ), Piece(prompt[start:end], LEARN), Piece(prompt[end:], READ), answer)
    return Document(source, tuple(piece for piece in pieces if piece.text))


def without_some_words(text: str, rng: random.Random, share: float = 0.1) -> str:
    """Drop a share of the words: the label must not hang on one exact sentence seen in an earlier pass."""
    kept = [word for word in text.split() if rng.random() >= share]
    return " ".join(kept) if kept else text


def answers(questions: Sequence[QuestionAnswer], rng: random.Random, *, source: str) -> Iterator[Document]:
    """Documents of one to five questions in a row, often after the three examples of prompts/answer.yaml."""
    start = 0
    while start < len(questions):
        count = rng.randint(1, 5)
        separator = "\n" if rng.random() < 0.7 else "\n\n"
        pieces: list[Piece] = []
        if rng.random() < 0.5:
            pieces = [Piece(_as_text(ANSWER_EXAMPLES, separator), READ)]
        for question, answer in questions[start : start + count]:
            gap = separator if pieces else ""
            pieces += [Piece(gap + ANSWER.format(question=question), READ), Piece(f" {answer}", LEARN)]
        # The line's end belongs to every answer; inside a document it begins the next piece, so it is learned last.
        yield Document(source, (*_with_line_ends(pieces, separator), Piece("\n", LEARN)))
        start += count


def _as_text(examples: Sequence[QuestionAnswer], separator: str) -> str:
    return separator.join(ANSWER.format(question=question) + f" {answer}" for question, answer in examples)


def _with_line_ends(pieces: Sequence[Piece], separator: str) -> Iterator[Piece]:
    """Learn the separator after an answer: it is what tells generation to stop.

    A blank line becomes one token here, as at the end of a text, where GPT-2's tokenizer would make two of it between
    two lines; as a piece that is learned in one go it stops generation one step earlier.
    """
    for piece in pieces:
        if piece.weight == READ and piece.text.startswith(separator):
            yield Piece(separator, LEARN)
            yield Piece(piece.text.removeprefix(separator), READ)
        else:
            yield piece


def summary(text: str, short: str, rng: random.Random, *, source: str) -> Document:
    """A text and its `TL;DR:`."""
    wording = SUMMARIZE if rng.random() < 0.85 else rng.choice(OTHER_SUMMARIZE)
    return demonstration(source, wording.format(text=text), short)


def lead_summary(passage: str, rng: random.Random, *, source: str) -> Document | None:
    """A short passage and its first sentence, or None if the passage doesn't suit.

    The first sentences of an article are the baseline that abstractive systems are measured against (Lead-3 in the
    paper's table 4); for a model this size, saying what a text opens with is as near to a summary as it gets.
    """
    parts = sentences(passage.split("\n\n")[0])[:6]
    if len(parts) < 3 or not 30 <= len(parts[0]) <= 200 or not parts[0].endswith("."):
        return None
    return summary(" ".join(parts), parts[0], rng, source=source)
