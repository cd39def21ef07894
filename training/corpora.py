"""The text at hand: which files, from whom, under which licence, and how to read them.

Every source is permissive or in the public domain. Share-alike collections (trivia questions, country databases) were
left out on purpose, so that the trained weights can be passed on under the same licence as the code.
"""

import gzip
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class CorpusError(Exception):
    """A corpus is missing or can't be read."""


@dataclass(frozen=True, slots=True)
class Source:
    """One collection of text, with what its licence asks us to say."""

    name: str
    files: tuple[str, ...]
    licence: str
    credit: str
    shows: str


SOURCES = (
    Source(
        "tatoeba",
        ("train/tatoeba_eng_fra_train.tsv.gz",),
        "CC BY 2.0 FR",
        "Sentence pairs by the contributors of tatoeba.org, selected by manythings.org/anki (2019-04-07)",
        "translation",
    ),
    Source(
        "sentence_polarity",
        ("train/sentence_polarity.jsonl.gz",),
        "CC BY 4.0",
        "Sentence polarity dataset v1.0, Bo Pang and Lillian Lee 2005, from nltk_data",
        "sentiment",
    ),
    Source(
        "movie_reviews",
        ("train/movie_reviews_polarity2.jsonl.gz",),
        "CC BY 4.0",
        "Polarity dataset v2.0, Bo Pang and Lillian Lee 2004, from nltk_data",
        "sentiment",
    ),
    Source(
        "webquestions",
        ("train/webquestions_train.jsonl.gz",),
        "CC BY 4.0",
        "WebQuestions, Berant et al. 2013, in the edition of brmson/dataset-factoid-webquestions",
        "answers",
    ),
    Source(
        "facts",
        (),
        "Apache-2.0",
        "training/facts.tsv and training/countries.tsv, written for this recipe",
        "answers",
    ),
    Source(
        "scitldr",
        ("train/scitldr_train.jsonl.gz",),
        "Apache-2.0",
        "SciTLDR, Cachola et al. 2020, Allen Institute for AI",
        "summaries",
    ),
    Source(
        "books",
        ("train/books_a.jsonl.xz", "train/books_b.jsonl.xz"),
        "public domain (US)",
        "Works published before 1930, from mlschmitt/classic-books-markdown",
        "completion, summaries, answers",
    ),
    Source(
        "speeches",
        ("train/us_presidential_speeches.txt.gz",),
        "public domain",
        "Inaugural and State of the Union addresses of presidents of the United States, from nltk_data",
        "completion, summaries",
    ),
    Source(
        "shakespeare",
        ("train/tinyshakespeare.txt.gz",),
        "public domain",
        "Plays by William Shakespeare, in the selection of karpathy/char-rnn",
        "completion",
    ),
)


def source(name: str) -> Source:
    """Raises CorpusError for a name that is not in SOURCES."""
    for candidate in SOURCES:
        if candidate.name == name:
            return candidate
    raise CorpusError(f"no source is called {name!r}; known: {', '.join(s.name for s in SOURCES)}")


def find(data: Path, relative: str) -> Path:
    """Raises CorpusError, saying what was expected where, when a file is missing."""
    path = data / relative
    if not path.is_file():
        raise CorpusError(
            f"{path} is missing. Put the corpora named in model_weights/demo/manifest.json under one folder "
            "(train/ for training, eval/ for evaluation) and pass that folder with --data."
        )
    return path


def read_text(path: Path) -> str:
    """The text of a `.gz` or `.xz` file."""
    opener = lzma.open if path.suffix == ".xz" else gzip.open
    with opener(path, "rt", encoding="utf-8") as file:
        return str(file.read())


def read_lines(path: Path) -> list[str]:
    """Lines that end in a line feed; other separators of Unicode (U+2028) may stand inside a JSON string."""
    return [line for line in read_text(path).split("\n") if line]


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """One record a line. Raises CorpusError, with the line's number, for a line that is no JSON object."""
    for number, line in enumerate(read_lines(path), start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise CorpusError(f"{path}, line {number}: not valid JSON ({error})") from None
        if not isinstance(record, dict):
            raise CorpusError(f"{path}, line {number}: expected a JSON object")
        yield record


def read_records(data: Path, name: str) -> Iterator[dict[str, Any]]:
    """All records of a JSONL source, file after file."""
    for relative in source(name).files:
        yield from read_jsonl(find(data, relative))


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Tab-separated (English, French) pairs. Raises CorpusError, with the line's number, for any other line."""
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        columns = line.split("\t")
        if len(columns) != 2:
            raise CorpusError(f"{path}, line {number}: expected two columns, found {len(columns)}")
        pairs.append((columns[0], columns[1]))
    return pairs
