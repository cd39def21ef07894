"""A Hugging Face folder from a checkpoint: `python -m training.export`.

Writes `config.json` and `model.safetensors` (fp16) next to the tokenizer's files. The folder is a complete GPT-2 with
50,257 rows of embeddings, of which the rare ones are copies of one shared row.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from training import checkpoint
from training.checkpoint import Checkpoint
from training.encoding import load_vocabulary
from training.folders import CACHE, DEMO, RUNS
from training.presets import Preset
from training.vocabulary import END_OF_TEXT_ID, GPT2_VOCAB_SIZE, Vocabulary
from zeroshot.model.config import GPT2Config

MAX_BYTES = 36 * 10**6  # the repository carries the file itself, without git LFS


def expand(weights: dict[str, Tensor], vocabulary: Vocabulary) -> dict[str, Tensor]:
    """Compact weights -> Hugging Face's names and all 50,257 rows, in fp16.

    The tied output projection isn't stored: transformers and the server take `wte` for it.
    """
    full = {f"transformer.{name}": weight.to(torch.float16).contiguous() for name, weight in weights.items()}
    rows = torch.from_numpy(vocabulary.to_compact().astype(np.int64))
    full["transformer.wte.weight"] = full["transformer.wte.weight"][rows].contiguous()
    return full


def half_way(weights: dict[str, Tensor], others: dict[str, Tensor]) -> dict[str, Tensor]:
    """The means of two runs' weights. Where one run went on from the other, the result is often about as good at what
    either of them learned last (Wortsman et al. 2022, Model soups)."""
    return {name: (weight + others[name]) / 2 for name, weight in weights.items()}


def full_config(compact: GPT2Config) -> GPT2Config:
    """The same architecture over GPT-2's own vocabulary."""
    return replace(compact, vocab_size=GPT2_VOCAB_SIZE, bos_token_id=END_OF_TEXT_ID, eos_token_id=END_OF_TEXT_ID)


def write_folder(folder: Path, weights: dict[str, Tensor], config: GPT2Config, vocabulary: Vocabulary) -> Path:
    """Writes the two files and returns the path of the weights; an older file is replaced only by a complete one."""
    folder.mkdir(parents=True, exist_ok=True)
    path, unfinished = folder / "model.safetensors", folder / "model.safetensors.tmp"
    save_file(expand(weights, vocabulary), unfinished, metadata={"format": "pt"})
    unfinished.replace(path)
    written = json.dumps(full_config(config).to_dict(), indent=2) + "\n"
    (folder / "config.json").write_text(written, encoding="utf-8")
    return path


def main(
    run: Annotated[str, typer.Option(help="Name of the run under training/runs.")] = "demo",
    average_with: Annotated[
        str | None, typer.Option(help="Name of another run: write the weights half-way between the two.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write; its tokenizer files are left alone.")] = DEMO,
    cache: Annotated[Path, typer.Option(help="Where `training.prepare` left the vocabulary.")] = CACHE,
) -> None:
    """Write a folder that transformers and the server can load. Example: python -m training.export --run demo"""
    saved = _load(run)
    weights = half_way(saved.model, _load(average_with).model) if average_with else saved.model
    vocabulary = load_vocabulary(cache)
    config = Preset(**saved.settings["preset"]).config(vocabulary.size)
    path = write_folder(out, weights, config, vocabulary)
    size = path.stat().st_size
    Console().print(f"step {saved.progress.step:,} -> {path}, {size / 1e6:.1f} MB")
    if size > MAX_BYTES:
        raise typer.BadParameter(f"{path} is larger than {MAX_BYTES / 1e6:.0f} MB, too large for the repository")


def _load(run: str) -> Checkpoint:
    source = RUNS / run / "checkpoint.pt"
    if not source.is_file():
        raise typer.BadParameter(f"{source} is missing: run `python -m training.train --name {run}` first")
    return checkpoint.load(source)


if __name__ == "__main__":
    typer.run(main)
