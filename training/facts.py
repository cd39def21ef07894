"""Short factual questions with answers: two tables written for this recipe, and the authors of the books at hand.

A model of this size can't reason about the world; it can remember a few hundred facts that it has read often.
"""

import csv
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent

# What to ask about each column of countries.tsv.
_COUNTRY_QUESTIONS = {
    "capital": (
        "What is the capital of {country}?",
        "What is the capital city of {country}?",
        "Which city is the capital of {country}?",
        "Name the capital of {country}.",
    ),
    "continent": ("On which continent is {country}?", "Where is {country}?"),
    "language": ("What language is spoken in {country}?", "Which language do people speak in {country}?"),
    "currency": ("What is the currency of {country}?", "What money is used in {country}?"),
}


class QuestionAnswer(NamedTuple):
    """A question and its shortest right answer."""

    question: str
    answer: str


def read_table(name: str) -> list[dict[str, str]]:
    """The rows of a tab-separated file beside this module."""
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def country_questions() -> Iterator[QuestionAnswer]:
    """Every question about every country, and the reverse: which country a capital belongs to."""
    for row in read_table("countries.tsv"):
        country = _with_article(row["country"])
        for column, questions in _COUNTRY_QUESTIONS.items():
            for question in questions:
                yield QuestionAnswer(question.format(country=country), row[column])
        yield QuestionAnswer(f"{row['capital']} is the capital of which country?", country)


def general_questions() -> Iterator[QuestionAnswer]:
    """The hand-written questions of facts.tsv."""
    for row in read_table("facts.tsv"):
        yield QuestionAnswer(row["question"], row["answer"])


def sums(limit: int = 10) -> Iterator[QuestionAnswer]:
    """Addition up to `limit` plus `limit`."""
    for a in range(1, limit + 1):
        for b in range(1, limit + 1):
            yield QuestionAnswer(f"What is {a} plus {b}?", str(a + b))


def author_questions(books: Iterable[tuple[str, str]]) -> Iterator[QuestionAnswer]:
    """`Who wrote <title>?` for (author, title) pairs."""
    for author, title in books:
        yield QuestionAnswer(f"Who wrote {title}?", author)


def shuffled(questions: Iterable[QuestionAnswer], seed: int) -> list[QuestionAnswer]:
    """All questions in an order that depends on `seed` only."""
    order = list(questions)
    random.Random(seed).shuffle(order)
    return order


def _with_article(country: str) -> str:
    takes_article = country.startswith("United") or country == "Philippines"
    return f"the {country}" if takes_article else country
