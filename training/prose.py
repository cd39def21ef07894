"""Plain text: books, speeches, plays. Passages to continue and, from other passages, lead-sentence summaries."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training import demonstrations as show
from training.clean import is_prose, normalise, passages
from training.corpora import find, read_records, read_text, source
from training.dedupe import drop_near_duplicates
from training.part import Part
from training.split import is_held_out

PASSAGE_CHARS = 3000  # about 700 tokens
PLAY_CHARS = 50_000
TITLES_HELD_OUT_PER_MILLE = 20  # whole works, so that no passage of a held-out book is trained on


@dataclass(frozen=True, slots=True)
class Work:
    """A book, a speech, a piece of a play; the split goes by its title."""

    title: str
    text: str


def prose(works: list[Work], rng: random.Random, *, name: str, num_passages: int, num_summaries: int) -> Part:
    """Up to `num_passages` passages to continue, and up to `num_summaries` short ones with their lead sentence."""
    cut = [(passage, work.title) for work in works for passage in passages(work.text, PASSAGE_CHARS)]
    # Twice as many as wanted: filters take some, and MinHash over all passages of all books would take an hour.
    sampled = rng.sample(cut, min(len(cut), 2 * (num_passages + num_summaries)))
    title_of = dict(sampled)
    # A play is all names and line ends, which `is_prose` is there to refuse elsewhere.
    clean = [passage for passage, _ in sampled if name == "shakespeare" or is_prose(passage)]
    kept = drop_near_duplicates(clean)
    hidden = [text for text in kept if is_held_out(title_of[text], per_mille=TITLES_HELD_OUT_PER_MILLE)]
    seen = [text for text in kept if not is_held_out(title_of[text], per_mille=TITLES_HELD_OUT_PER_MILLE)]
    summaries = [show.lead_summary(text, rng, source=name) for text in seen[num_passages:]]
    shown = [show.prose(name, text) for text in seen[:num_passages]]
    shown += [document for document in summaries if document is not None][:num_summaries]
    return Part(name, len(sampled), len(kept), shown, [show.prose(name, text) for text in hidden[: num_passages // 50]])


def books(data: Path) -> Iterator[Work]:
    for book in read_records(data, "books"):
        yield Work(book["title"], normalise(book["text"]))


def speeches(data: Path) -> Iterator[Work]:
    """A speech has no title in the corpus; its opening words stand for one."""
    for speech in read_text(find(data, source("speeches").files[0])).split("<|endoftext|>"):
        yield Work(speech.strip()[:200], normalise(speech))


def plays(data: Path) -> Iterator[Work]:
    text = read_text(find(data, source("shakespeare").files[0]))
    for number, start in enumerate(range(0, len(text), PLAY_CHARS)):
        yield Work(f"tinyshakespeare {number}", normalise(text[start : start + PLAY_CHARS]))
