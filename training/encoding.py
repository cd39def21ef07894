"""Documents -> packed rows of token ids, ready for training."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from training.demonstrations import Document
from training.packing import Rows, pack
from training.vocabulary import END_OF_TEXT_ID, GPT2_VOCAB_SIZE, Vocabulary

Encoded = tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]

ROW_LENGTHS = {"short": 128, "long": 1024}
MIN_COUNT = 32  # a rarer token has no chance to move its row; keeps about 20,000 rows and 99.5 % of all targets
_BATCH_DOCUMENTS = 20_000


def encode(tokenizer: Tokenizer, documents: Sequence[Document]) -> Iterator[Encoded]:
    """Token ids and weights of each document, with `<|endoftext|>` at its end.

    Pieces are encoded one by one; each begins with a space or a line's end where GPT-2's pre-tokenizer would split
    anyway, so the ids are those of the whole text (a test holds the two together).
    """
    for start in range(0, len(documents), _BATCH_DOCUMENTS):
        batch = documents[start : start + _BATCH_DOCUMENTS]
        pieces = [piece for document in batch for piece in document.pieces]
        ids = iter(tokenizer.encode_batch_fast([piece.text for piece in pieces], add_special_tokens=False))
        for document in batch:
            encoded = [(next(ids).ids, piece.weight) for piece in document.pieces]
            tokens = [token for piece_ids, _ in encoded for token in piece_ids] + [END_OF_TEXT_ID]
            weights = [weight for piece_ids, weight in encoded for _ in piece_ids] + [1]
            yield np.array(tokens, dtype=np.uint16), np.array(weights, dtype=np.uint8)


def by_row_length(encoded: Iterable[Encoded]) -> dict[str, list[Encoded]]:
    """Sort documents into the shortest row that holds them; one longer than the longest row is cut into rows."""
    longest = ROW_LENGTHS["long"]
    buckets: dict[str, list[Encoded]] = {"short": [], "long": []}
    for tokens, weights in encoded:
        bucket = "short" if len(tokens) <= ROW_LENGTHS["short"] else "long"
        for start in range(0, len(tokens), longest):
            buckets[bucket].append((tokens[start : start + longest], weights[start : start + longest]))
    return buckets


def count_tokens(encoded: Iterable[Encoded]) -> npt.NDArray[np.int64]:
    """How often each of the 50,257 tokens occurs: [50257]."""
    counts = np.zeros(GPT2_VOCAB_SIZE, dtype=np.int64)
    for tokens, _ in encoded:
        np.add.at(counts, tokens, 1)
    return counts


def compact(rows: Rows, vocabulary: Vocabulary) -> Rows:
    """The same rows in compact ids; a token without a row of its own is never a target."""
    tokens = vocabulary.to_compact()[rows.tokens]
    return Rows(tokens, np.where(tokens == vocabulary.shared_id, np.uint8(0), rows.weights))


@dataclass(frozen=True, slots=True)
class Prepared:
    """What training reads: packed rows in compact ids, and what the ids stand for."""

    rows: dict[str, Rows]
    vocabulary: Vocabulary
    tokens_by_source: dict[str, int]

    def save(self, cache: Path) -> None:
        np.save(cache / "vocabulary.npy", self.vocabulary.kept)
        for name, rows in self.rows.items():
            np.savez(cache / f"{name}.npz", tokens=rows.tokens, weights=rows.weights)


def tokenise_and_pack(
    tokenizer: Tokenizer,
    train: Sequence[Document],
    held_out: Sequence[Document],
    vocabulary: Vocabulary | None = None,
) -> Prepared:
    """Documents in the order they are given -> rows; a new vocabulary is chosen on the training side alone."""
    encoded = list(encode(tokenizer, train))
    tokens_by_source: Counter[str] = Counter()
    for document, (tokens, _) in zip(train, encoded, strict=True):
        tokens_by_source[document.source] += len(tokens)
    if vocabulary is None:
        vocabulary = Vocabulary.from_counts(count_tokens(encoded), min_count=MIN_COUNT)
    buckets = by_row_length(encoded)
    buckets |= {f"held_out_{name}": part for name, part in by_row_length(encode(tokenizer, held_out)).items()}
    rows = {
        name: compact(pack(documents, ROW_LENGTHS[name.removeprefix("held_out_")], END_OF_TEXT_ID), vocabulary)
        for name, documents in buckets.items()
    }
    return Prepared(rows, vocabulary, dict(tokens_by_source))


def load_vocabulary(cache: Path) -> Vocabulary:
    """The vocabulary of the main mixture. Raises FileNotFoundError, naming the command that makes it."""
    path = cache / "main" / "vocabulary.npy"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `python -m training.prepare --data DIR` first")
    return Vocabulary(np.load(path))
