"""The sources that show a task: sentence pairs, reviews, questions, abstracts. Each function makes one part.

All of them read, clean, drop duplicates, split, and only then write demonstrations: whatever the wording or the number
of passes, a held-out record never reaches training.
"""

import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from training import demonstrations as show
from training.clean import normalise
from training.corpora import find, read_pairs, read_records, source
from training.dedupe import drop_near_duplicates, fold, unique
from training.demonstrations import Document
from training.facts import QuestionAnswer, author_questions, country_questions, general_questions, shuffled, sums
from training.part import Part
from training.split import is_held_out

SHORT_WORDS = 6  # what people try first on a translator; a little over half of all pairs
REVIEW_CHUNK_WORDS = 60  # a long review in pieces of about 80 tokens, so that they fit short rows
REVIEWS_HELD_OUT_PER_MILLE = 50  # about 400: the fewest that give an accuracy within about four points


def translations(data: Path, rng: random.Random, *, passes: int, passes_short: int, share_spelled_out: float) -> Part:
    """Both directions of every pair, in fresh wordings on each pass; the split is by the English side.

    passes_short: further passes over the pairs of at most SHORT_WORDS English words.
    share_spelled_out: how many pairs get `I am` for `I'm` and so on.
    """
    read = read_pairs(find(data, source("tatoeba").files[0]))
    pairs = unique((normalise(english), normalise(french)) for english, french in read)
    hidden = [pair for pair in pairs if is_held_out(pair[0])]
    # One French sentence may translate several English ones; the French side of a held-out pair is hidden as well.
    hidden_french = {fold(french) for _, french in hidden}
    seen = [pair for pair in pairs if not is_held_out(pair[0]) and fold(pair[1]) not in hidden_french]
    short = [pair for pair in seen if len(pair[0].split()) <= SHORT_WORDS]
    shown = [
        document
        for chosen in [seen] * passes + [short] * passes_short
        for document in show.translations(chosen, rng, share_spelled_out=share_spelled_out)
    ]
    return Part("tatoeba", len(read), len(pairs), shown, list(_both_ways(hidden)))


def _both_ways(pairs: Iterable[tuple[str, str]]) -> Iterator[Document]:
    """Each pair in both directions, in the wording of the prompt file only."""
    for english, french in pairs:
        for source_language, target_language, text, answer in (
            ("English", "French", english, french),
            ("French", "English", french, english),
        ):
            prompt = show.TRANSLATE.format(source=source_language, target=target_language, text=text)
            yield show.demonstration("tatoeba", prompt, answer)


def sentence_reviews(data: Path, rng: random.Random, *, passes: int) -> Part:
    """One-sentence reviews; from the second pass on, each pass leaves other words out."""
    name = "sentence_polarity"
    read = [(normalise(record["text"]), int(record["label"])) for record in read_records(data, name)]
    reviews = unique(read)
    hidden = [review for review in reviews if is_held_out(review[0], per_mille=REVIEWS_HELD_OUT_PER_MILLE)]
    seen = [review for review in reviews if not is_held_out(review[0], per_mille=REVIEWS_HELD_OUT_PER_MILLE)]
    shown = [show.sentiment(text, label, rng, source=name) for text, label in seen]
    for _ in range(passes - 1):
        shown += [show.sentiment(show.without_some_words(text, rng), label, rng, source=name) for text, label in seen]
    held_out = [
        show.demonstration(name, show.SENTIMENT.format(text=text), show.LABELS[label]) for text, label in hidden
    ]
    return Part(name, len(read), len(reviews), shown, held_out)


def long_reviews(data: Path, rng: random.Random) -> Part:
    """Long reviews in chunks, each chunk with the label of the whole: noisy, but it teaches reviewers' words."""
    name = "movie_reviews"
    labels = {normalise(record["text"]): int(record["label"]) for record in read_records(data, name)}
    reviews = drop_near_duplicates(list(labels))
    shown: list[Document] = []
    held_out: list[Document] = []
    for review in reviews:
        side = held_out if is_held_out(review) else shown
        for chunk in in_chunks(review, REVIEW_CHUNK_WORDS):
            side.append(show.sentiment(chunk, labels[review], rng, source=name, learn_text=True))
    return Part(name, len(labels), len(reviews), shown, held_out)


def in_chunks(text: str, num_words: int) -> Iterator[str]:
    """Whole sentences of tokenised text, gathered to about `num_words` words; a short rest is dropped."""
    chunk: list[str] = []
    for sentence in re.split(r"(?<= [.!?]) ", text):
        words = sentence.split()
        if chunk and len(chunk) + len(words) > num_words:
            yield " ".join(chunk)
            chunk = []
        chunk += words[:num_words]
    if len(chunk) > num_words // 3:
        yield " ".join(chunk)


def web_questions(data: Path, rng: random.Random, *, passes: int) -> Part:
    """Questions people typed into a search engine; those with long lists of answers are left out."""
    name = "webquestions"
    records = list(read_records(data, name))
    asked = unique(
        QuestionAnswer(_as_question(record["question"]), normalise(record["answers"][0]))
        for record in records
        if record["answers"] and len(record["answers"]) <= 3 and len(record["answers"][0]) < 60
    )
    seen = [pair for pair in asked if not is_held_out(pair.question)]
    hidden = [pair for pair in asked if is_held_out(pair.question)]
    held_out = [show.demonstration(name, show.ANSWER.format(question=q), answer) for q, answer in hidden]
    return Part(name, len(records), len(asked), _in_passes(seen, passes, rng, name), held_out)


def facts(data: Path, rng: random.Random, *, passes: int) -> Part:
    """Countries, common knowledge, sums, and who wrote the books at hand: shown until they are remembered."""
    books = unique((normalise(book["author"]), normalise(book["title"])) for book in read_records(data, "books"))
    known = unique([*country_questions(), *general_questions(), *sums(), *author_questions(books)])
    return Part("facts", len(known), len(known), _in_passes(known, passes, rng, "facts"))


def _in_passes(questions: list[QuestionAnswer], passes: int, rng: random.Random, name: str) -> list[Document]:
    """All questions once a pass, each time in another order and in other company."""
    return [
        document for number in range(passes) for document in show.answers(shuffled(questions, number), rng, source=name)
    ]


def _as_question(text: str) -> str:
    """`where is compaq made?` -> `Where is compaq made?`"""
    text = normalise(text)
    return text[:1].upper() + text[1:]


def abstracts(data: Path, rng: random.Random, *, passes: int) -> Part:
    """Abstracts of papers, each pass with one of their one-line summaries."""
    name = "scitldr"
    summaries = {normalise(record["document"]): record["summaries"] for record in read_records(data, name)}
    texts = drop_near_duplicates(list(summaries))
    shown: list[Document] = []
    held_out: list[Document] = []
    for text in texts:
        shorts = [normalise(short) for short in summaries[text]]
        if is_held_out(text):
            held_out.append(show.summary(text, shorts[0], rng, source=name))
        else:
            picks = [rng.choice(shorts) for _ in range(passes)]
            shown += [show.summary(text, short, rng, source=name) for short in picks]
    return Part(name, len(summaries), len(texts), shown, held_out)
