"""The data pipeline, end to end: `python -m training.prepare --data DIR`.

Clean, de-duplicate, split, write demonstrations, tokenise, pack. Leaves packed rows in `training/cache/` and a
manifest (counts, sources, licences) next to the weights, where people look for it.
"""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from tokenizers import Tokenizer

from training.corpora import SOURCES, CorpusError
from training.demonstrations import Document
from training.mixture import Passes, Split, build
from training.packing import Rows, pack
from training.vocabulary import END_OF_TEXT_ID, GPT2_VOCAB_SIZE, Vocabulary, load_tokenizer

Encoded = tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]

ROW_LENGTHS = {"short": 128, "long": 1024}
MIN_COUNT = 8  # below this a row of the embedding stays near its random start
_BATCH_DOCUMENTS = 20_000

CACHE = Path("training/cache")
DEMO = Path("model_weights/demo")


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


def save_rows(folder: Path, name: str, rows: Rows) -> None:
    np.savez(folder / f"{name}.npz", tokens=rows.tokens, weights=rows.weights)


def manifest(split: Split, passes: Passes, tokens: dict[str, int], rows: dict[str, Rows], vocabulary: Vocabulary,
             *, seed: int) -> dict[str, object]:
    """Everything a reader of the model card may want to check."""
    packed = {
        name: {
            "rows": len(packed.tokens),
            "row_length": packed.length,
            "share_of_targets": round(float(np.count_nonzero(packed.weights)) / packed.weights.size, 4),
        }
        for name, packed in rows.items()
    }
    return {
        "seed": seed,
        "passes": asdict(passes),
        "sources": [
            {**asdict(source), **split.counts[source.name], "tokens_train": tokens.get(source.name, 0)}
            for source in SOURCES
        ],
        "vocabulary": {"kept": len(vocabulary.kept), "shared": vocabulary.num_shared, "min_count": MIN_COUNT},
        "rows": packed,
    }


def main(
    data: Annotated[Path, typer.Option(help="Folder with the corpora: train/, eval/.")],
    tokenizer_folder: Annotated[Path, typer.Option(help="Folder with vocab.json and merges.txt.")] = DEMO,
    cache: Annotated[Path, typer.Option(help="Where the packed rows go.")] = CACHE,
    manifest_path: Annotated[Path, typer.Option(help="Where the manifest goes.")] = DEMO / "manifest.json",
    seed: Annotated[int, typer.Option(help="Decides wordings, samples and order.")] = 0,
) -> None:
    """Make the training rows. Example: python -m training.prepare --data corpora"""
    console = Console()
    tokenizer, passes = load_tokenizer(tokenizer_folder), Passes()
    try:
        with console.status("cleaning, de-duplicating, splitting"):
            split = build(data, passes, seed=seed)
    except CorpusError as error:
        raise typer.BadParameter(str(error)) from None
    random.Random(seed).shuffle(split.train)
    with console.status("tokenising"):
        encoded = list(encode(tokenizer, split.train))
        buckets = by_row_length(encoded)
        held_out = by_row_length(encode(tokenizer, split.held_out))
    vocabulary = Vocabulary.from_counts(count_tokens(encoded), min_count=MIN_COUNT)
    with console.status("packing"):
        rows = {name: pack(documents, ROW_LENGTHS[name], END_OF_TEXT_ID) for name, documents in buckets.items()}
        rows |= {f"held_out_{n}": pack(documents, ROW_LENGTHS[n], END_OF_TEXT_ID) for n, documents in held_out.items()}
    cache.mkdir(parents=True, exist_ok=True)
    np.save(cache / "vocabulary.npy", vocabulary.kept)
    for name, packed in rows.items():
        save_rows(cache, name, compact(packed, vocabulary))
    tokens_by_source: dict[str, int] = {}
    for document, (tokens, _) in zip(split.train, encoded, strict=True):
        tokens_by_source[document.source] = tokens_by_source.get(document.source, 0) + len(tokens)
    written = manifest(split, passes, tokens_by_source, rows, vocabulary, seed=seed)
    manifest_path.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    total = sum(tokens_by_source.values())
    console.print(f"{total:,} tokens, {len(vocabulary.kept):,} kept rows -> {cache}; manifest -> {manifest_path}")


if __name__ == "__main__":
    typer.run(main)
