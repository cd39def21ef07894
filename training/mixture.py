"""How much of each source goes in, and the documents that come out.

About two thirds of the tokens are translation, the task this model is shown off with; one fifth are reviews, answers
and summaries; the rest is prose.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training import demonstrations as show
from training.clean import is_prose, normalise, passages
from training.corpora import find, read_pairs, read_records, read_text, source
from training.dedupe import drop_near_duplicates, fold, unique
from training.demonstrations import Document
from training.facts import (
    QuestionAnswer,
    author_questions,
    country_questions,
    general_questions,
    shuffled,
    sums,
)
from training.split import is_held_out

REVIEW_CHUNK_WORDS = 60  # a long review in pieces of about 80 tokens, so that they fit short rows
PASSAGE_CHARS = 3000  # about 700 tokens


@dataclass(frozen=True, slots=True)
class Passes:
    """How often each source is shown (`facts` are few and must be remembered), and how many passages of prose."""

    tatoeba: int = 2
    sentence_polarity: int = 6
    webquestions: int = 3
    facts: int = 20
    scitldr: int = 2
    prose_passages: int = 6000
    lead_summaries: int = 7000


@dataclass(slots=True)
class Split:
    """Documents for training and the held-out ones, with counts for the manifest."""

    train: list[Document]
    held_out: list[Document]
    counts: dict[str, dict[str, int]]

    def add(self, name: str, *, read: int, kept: int, train: list[Document], held_out: list[Document]) -> None:
        self.train += train
        self.held_out += held_out
        self.counts[name] = {
            "records_read": read,
            "records_after_cleaning_and_dedupe": kept,
            "documents_train": len(train),
            "documents_held_out": len(held_out),
        }


def build(data: Path, passes: Passes, *, seed: int) -> Split:
    """All documents of the recipe, in no particular order; a pure function of its arguments and the files."""
    split = Split([], [], {})
    add_translations(split, data, passes, random.Random(f"{seed}-tatoeba"))
    add_sentence_reviews(split, data, passes, random.Random(f"{seed}-polarity"))
    add_long_reviews(split, data, random.Random(f"{seed}-reviews"))
    add_answers(split, data, passes, random.Random(f"{seed}-answers"))
    add_abstracts(split, data, passes, random.Random(f"{seed}-scitldr"))
    add_prose(split, data, passes, random.Random(f"{seed}-prose"))
    return split


def add_translations(split: Split, data: Path, passes: Passes, rng: random.Random) -> None:
    """Both directions of every pair, in fresh wordings on each pass; the split is by the English side."""
    read = read_pairs(find(data, source("tatoeba").files[0]))
    pairs = unique((normalise(english), normalise(french)) for english, french in read)
    train = [pair for pair in pairs if not is_held_out(pair[0])]
    # A French sentence may translate several English ones: none of those may leak a held-out pair's French side.
    hidden = [pair for pair in pairs if is_held_out(pair[0])]
    hidden_french = {fold(french) for _, french in hidden}
    train = [pair for pair in train if fold(pair[1]) not in hidden_french]
    shown = [document for _ in range(passes.tatoeba) for document in show.translations(train, rng)]
    split.add("tatoeba", read=len(read), kept=len(pairs), train=shown, held_out=list(_plain_translations(hidden)))


def _plain_translations(pairs: list[tuple[str, str]]) -> Iterator[Document]:
    for english, french in pairs:
        prompt = show.TRANSLATE.format(source="English", target="French", text=english)
        yield show.demonstration("tatoeba", prompt, french)
        prompt = show.TRANSLATE.format(source="French", target="English", text=french)
        yield show.demonstration("tatoeba", prompt, english)


def add_sentence_reviews(split: Split, data: Path, passes: Passes, rng: random.Random) -> None:
    """One-sentence reviews, each pass with other words left out."""
    name = "sentence_polarity"
    read = [(normalise(record["text"]), int(record["label"])) for record in read_records(data, name)]
    reviews = unique(read)
    # 5 % held out instead of 1 %: 400 reviews is the least that gives an accuracy within about four points.
    hidden = [review for review in reviews if is_held_out(review[0], per_mille=50)]
    seen = [review for review in reviews if not is_held_out(review[0], per_mille=50)]
    train = [show.sentiment(text, label, rng, source=name) for text, label in seen]
    for _ in range(passes.sentence_polarity - 1):
        train += [
            show.sentiment(show.without_some_words(text, rng), label, rng, source=name) for text, label in seen
        ]
    held_out = [
        show.demonstration(name, show.SENTIMENT.format(text=text), show.LABELS[label], weight=show.LEARN_LABEL)
        for text, label in hidden
    ]
    split.add(name, read=len(read), kept=len(reviews), train=train, held_out=held_out)


def add_long_reviews(split: Split, data: Path, rng: random.Random) -> None:
    """Long reviews in chunks, each chunk with the label of the whole: noisy, but it teaches what words reviewers use."""
    name = "movie_reviews"
    labels = {normalise(record["text"]): int(record["label"]) for record in read_records(data, name)}
    reviews = drop_near_duplicates(list(labels))
    train: list[Document] = []
    held_out: list[Document] = []
    for review in reviews:
        hidden = is_held_out(review)
        for chunk in _chunks(review, REVIEW_CHUNK_WORDS):
            document = show.sentiment(chunk, labels[review], rng, source=name, learn_text=True)
            (held_out if hidden else train).append(document)
    split.add(name, read=len(labels), kept=len(reviews), train=train, held_out=held_out)


def _chunks(text: str, num_words: int) -> Iterator[str]:
    """Whole tokenised sentences, gathered to about `num_words` words."""
    chunk: list[str] = []
    for sentence in re.split(r"(?<= [.!?]) ", text):
        words = sentence.split()
        if chunk and len(chunk) + len(words) > num_words:
            yield " ".join(chunk)
            chunk = []
        chunk += words[:num_words]
    if len(chunk) > num_words // 3:
        yield " ".join(chunk)


def add_answers(split: Split, data: Path, passes: Passes, rng: random.Random) -> None:
    """Questions people asked (WebQuestions), and facts that are shown until they are remembered."""
    records = list(read_records(data, "webquestions"))
    asked = unique(
        QuestionAnswer(_as_question(record["question"]), normalise(record["answers"][0]))
        for record in records
        if record["answers"] and len(record["answers"]) <= 3 and len(record["answers"][0]) < 60
    )
    seen = [pair for pair in asked if not is_held_out(pair.question)]
    hidden = [pair for pair in asked if is_held_out(pair.question)]
    train = [
        document
        for number in range(passes.webquestions)
        for document in show.answers(shuffled(seen, number), rng, source="webquestions")
    ]
    held_out = [show.demonstration("webquestions", show.ANSWER.format(question=q), a) for q, a in hidden]
    split.add("webquestions", read=len(records), kept=len(asked), train=train, held_out=held_out)

    books = unique((normalise(book["author"]), normalise(book["title"])) for book in read_records(data, "books"))
    facts = unique([*country_questions(), *general_questions(), *sums(), *author_questions(books)])
    train = [
        document
        for number in range(passes.facts)
        for document in show.answers(shuffled(facts, number), rng, source="facts")
    ]
    split.add("facts", read=len(facts), kept=len(facts), train=train, held_out=[])


def _as_question(text: str) -> str:
    """`where is compaq made?` -> `Where is compaq made?`"""
    text = normalise(text)
    return text[:1].upper() + text[1:]


def add_abstracts(split: Split, data: Path, passes: Passes, rng: random.Random) -> None:
    """Abstracts of papers with their one-line summaries."""
    records = {normalise(record["document"]): record["summaries"] for record in read_records(data, "scitldr")}
    abstracts = drop_near_duplicates(list(records))
    train: list[Document] = []
    held_out: list[Document] = []
    for abstract in abstracts:
        shorts = [normalise(short) for short in records[abstract]]
        if is_held_out(abstract):
            held_out.append(show.summary(abstract, shorts[0], rng, source="scitldr"))
        else:
            picks = [rng.choice(shorts) for _ in range(passes.scitldr)]
            train += [show.summary(abstract, short, rng, source="scitldr") for short in picks]
    split.add("scitldr", read=len(records), kept=len(abstracts), train=train, held_out=held_out)


def add_prose(split: Split, data: Path, passes: Passes, rng: random.Random) -> None:
    """Passages for continuation and, from other passages, lead-sentence summaries; books are held out whole."""
    texts = list(_prose_texts(data))
    sizes = {"books": 0.84, "speeches": 0.11, "shakespeare": 0.05}
    for name, share in sizes.items():
        wanted = round(share * passes.prose_passages)
        leads = round(share * passes.lead_summaries) if name != "shakespeare" else 0
        titled = [(title, passage) for origin, title, text in texts if origin == name for passage in _cut(text)]
        titled = rng.sample(titled, min(len(titled), 2 * (wanted + leads)))
        title_of = {passage: title for title, passage in titled}
        kept = drop_near_duplicates([passage for _, passage in titled if name == "shakespeare" or is_prose(passage)])
        hidden = [passage for passage in kept if is_held_out(title_of[passage], per_mille=20)]
        seen = [passage for passage in kept if not is_held_out(title_of[passage], per_mille=20)]
        summaries = [show.lead_summary(passage, rng, source=name) for passage in seen[wanted:]]
        train = [show.prose(name, passage) for passage in seen[:wanted]]
        train += [document for document in summaries if document is not None][:leads]
        held_out = [show.prose(name, passage) for passage in hidden[: wanted // 50]]
        split.add(name, read=len(titled), kept=len(kept), train=train, held_out=held_out)


def _prose_texts(data: Path) -> Iterator[tuple[str, str, str]]:
    """(source, title, text): a title is what the split goes by."""
    for book in read_records(data, "books"):
        yield "books", book["title"], normalise(book["text"])
    speeches = read_text(find(data, source("speeches").files[0])).split("<|endoftext|>")
    for speech in speeches:
        yield "speeches", speech.strip()[:200], normalise(speech)
    plays = read_text(find(data, source("shakespeare").files[0]))
    for number, start in enumerate(range(0, len(plays), 50_000)):
        yield "shakespeare", f"tinyshakespeare {number}", normalise(plays[start : start + 50_000])


def _cut(text: str) -> Iterator[str]:
    return passages(text, PASSAGE_CHARS)
