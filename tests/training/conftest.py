"""A corpus of a few hundred invented records in the layout of the real one: the whole recipe then runs in seconds."""

import gzip
import json
import lzma
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from training.vocabulary import load_tokenizer

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "model_weights" / "demo"

NOUNS = ("dog", "cat", "house", "river", "friend", "teacher", "garden", "letter", "horse", "city", "boat", "window")
NOMS = (
    "chien",
    "chat",
    "maison",
    "rivière",
    "ami",
    "professeur",
    "jardin",
    "lettre",
    "cheval",
    "ville",
    "bateau",
    "fenêtre",
)
VERBS = ("see", "want", "know", "like", "remember", "need", "draw", "find", "follow", "forget")
VERBES = ("vois", "veux", "connais", "aime", "reconnais", "cherche", "dessine", "trouve", "suis", "oublie")


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return load_tokenizer(DEMO)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The real corpora, whose folder is named by an environment variable."""
    folder = os.environ.get("TRAINING_DATA", "")
    if not (Path(folder) / "train").is_dir() or not folder:
        pytest.skip("the corpora are not at hand: set TRAINING_DATA to the folder that holds train/ and eval/")
    return Path(folder)


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files that `training.corpora` names, with invented content."""
    folder = tmp_path_factory.mktemp("corpora")
    (folder / "train").mkdir()
    pairs = [
        (f"I {verb} the {noun}.", f"Je {verbe} le {nom}.")
        for noun, nom in zip(NOUNS, NOMS, strict=True)
        for verb, verbe in zip(VERBS, VERBES, strict=True)
    ]
    pairs.append(pairs[0])
    _write(folder / "train/tatoeba_eng_fra_train.tsv.gz", "".join(f"{en}\t{fr}\n" for en, fr in pairs))
    reviews = [{"text": f"a {word} film about a {noun} .", "label": int(word == "good")}
               for noun in NOUNS for word in ("good", "bad")]  # fmt: skip
    _write_jsonl(folder / "train/sentence_polarity.jsonl.gz", reviews)
    long_reviews = [
        {"text": " ".join([review["text"], *map(str, range(40))]), "label": review["label"]} for review in reviews
    ]
    _write_jsonl(folder / "train/movie_reviews_polarity2.jsonl.gz", long_reviews)
    questions = [{"question": f"where is the {noun}?", "answers": ["Paris"]} for noun in NOUNS]
    _write_jsonl(folder / "train/webquestions_train.jsonl.gz", questions)
    abstracts = [
        {"document": f"We study the {noun}. {_prose(noun, 5)}", "summaries": [f"A study of the {noun}."]}
        for noun in NOUNS
    ]
    _write_jsonl(folder / "train/scitldr_train.jsonl.gz", abstracts)
    books = [
        {"author": "A. Writer", "title": f"The {noun}", "text": "\n\n".join(_prose(noun + verb, 9) for verb in VERBS)}
        for noun in NOUNS
        for _ in range(2)
    ]
    _write_jsonl(folder / "train/books_a.jsonl.xz", books[::2])
    _write_jsonl(folder / "train/books_b.jsonl.xz", books[1::2])
    _write(folder / "train/us_presidential_speeches.txt.gz", "<|endoftext|>".join(_prose(noun, 12) for noun in NOUNS))
    _write(
        folder / "train/tinyshakespeare.txt.gz", "\n\n".join(f"{noun.upper()}:\n{_prose(noun, 2)}" for noun in NOUNS)
    )
    return folder


def _prose(word: str, num_sentences: int) -> str:
    """Sentences of no meaning; the word makes texts differ in nearly every shingle."""
    return " ".join(f"The {word} went {word} {number} times round the old {word} hill and came home."
                    for number in range(num_sentences))  # fmt: skip


def _write(path: Path, text: str) -> None:
    with (lzma.open if path.suffix == ".xz" else gzip.open)(path, "wt", encoding="utf-8") as file:
        file.write(text)


def _write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> None:
    _write(path, "".join(json.dumps(record) + "\n" for record in records))
