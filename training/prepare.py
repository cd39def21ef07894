"""The data pipeline, end to end: `python -m training.prepare --data DIR`.

Clean, de-duplicate, split, write demonstrations, tokenise, pack. Leaves packed rows in `training/cache/` and a
manifest next to the weights.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training.corpora import CorpusError
from training.demonstrations import Document
from training.encoding import load_vocabulary, tokenise_and_pack
from training.folders import CACHE, DEMO, HELD_OUT_FILE
from training.manifest import add_to_manifest, manifest
from training.mixture import MIXTURES, build
from training.vocabulary import load_tokenizer


def save_held_out(path: Path, documents: Sequence[Document]) -> None:
    """One line a document: what is given, and what its last piece asks the model to say."""
    with path.open("w", encoding="utf-8") as file:
        for document in documents:
            *given, scored = (piece.text for piece in document.pieces)
            record = {"source": document.source, "given": "".join(given), "scored": scored}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def main(
    data: Annotated[Path, typer.Option(help="Folder with the corpora: train/, eval/.")],
    tokenizer_folder: Annotated[Path, typer.Option(help="Folder with vocab.json and merges.txt.")] = DEMO,
    mixture: Annotated[str, typer.Option(help=f"Which mixture: {', '.join(MIXTURES)}.")] = "main",
    cache: Annotated[Path, typer.Option(help="The packed rows go into a folder here, named as the mixture.")] = CACHE,
    manifest_path: Annotated[Path, typer.Option(help="Where the manifest goes.")] = DEMO / "manifest.json",
    seed: Annotated[int, typer.Option(help="Decides wordings, samples and order.")] = 0,
) -> None:
    """Make the training rows. Example: python -m training.prepare --data corpora --mixture main"""
    if mixture not in MIXTURES:
        raise typer.BadParameter(f"--mixture must be one of {', '.join(MIXTURES)}, not {mixture!r}")
    console, passes, folder = Console(), MIXTURES[mixture], cache / mixture
    try:
        # The rows of a model are those of the main mixture; other mixtures are prepared for the same model.
        vocabulary = None if mixture == "main" else load_vocabulary(cache)
        tokenizer = load_tokenizer(tokenizer_folder)
        with console.status("cleaning, de-duplicating, splitting"):
            parts = build(data, passes, seed=seed)
    except (CorpusError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from None
    train = [document for part in parts for document in part.train]
    held_out = [document for part in parts for document in part.held_out]
    random.Random(seed).shuffle(train)
    with console.status("tokenising and packing"):
        prepared = tokenise_and_pack(tokenizer, train, held_out, vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    prepared.save(folder)
    save_held_out(folder / HELD_OUT_FILE, held_out)
    add_to_manifest(manifest_path, mixture, manifest(parts, passes, prepared, seed=seed))
    total = sum(prepared.tokens_by_source.values())
    console.print(f"{total:,} tokens, {len(prepared.vocabulary.kept):,} kept rows -> {folder}", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
