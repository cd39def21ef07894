"""What a rounded model costs: perplexity and greedy agreement with the exact one."""

import gzip
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroshot.engine.selfcheck import prompt_logits
from zeroshot.model.gpt2 import GPT2

FILE = "wikitext2_raw_test.txt"
BOOKS_FILE = "books_heldout.jsonl"
_EXCERPT = slice(20_000, 60_000)  # of each book: past the title and the contents


def compare(models: dict[str, GPT2], token_ids: list[int], num_windows: int, window_tokens: int) -> dict[str, Any]:
    """models: by name, the exact one, then the rounded one. At most num_windows windows, each by itself."""
    tokens = torch.tensor(token_ids[: num_windows * window_tokens])
    windows = tokens[: len(tokens) // window_tokens * window_tokens].view(-1, window_tokens)
    nats = dict.fromkeys(models, 0.0)
    num_agreed = num_scored = 0
    for window in windows:
        logits = [prompt_logits(model, window.tolist(), window_tokens)[:-1].cpu() for model in models.values()]
        for name, values in zip(models, logits, strict=True):
            nats[name] += _nats(values, window[1:])
        exact, rounded = (values.argmax(-1) for values in logits)
        num_agreed += int((exact == rounded).sum())
        num_scored += window_tokens - 1
    perplexity = {name: math.exp(total / num_scored) for name, total in nats.items()}
    before, after = perplexity.values()
    return {
        "perplexity": {name: round(value, 4) for name, value in perplexity.items()},
        "perplexity_change_percent": round(100 * (after / before - 1), 4),
        "greedy_agreement_percent": round(100 * num_agreed / num_scored, 2),
    }


def _nats(logits: Tensor, targets: Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(logits.double(), targets, reduction="sum"))


def wikitext(folder: Path) -> str:
    """Raises FileNotFoundError if the folder has no copy of the test set."""
    return _read(folder, FILE)


def books(folder: Path) -> str:
    """An excerpt of each unseen book. Raises FileNotFoundError if the folder doesn't have them."""
    return "".join(json.loads(line)["text"][_EXCERPT] for line in _read(folder, BOOKS_FILE).splitlines())


def _read(folder: Path, name: str) -> str:
    compressed = folder / f"{name}.gz"
    if compressed.exists():
        return gzip.decompress(compressed.read_bytes()).decode()
    return (folder / name).read_bytes().decode()  # line ends as they are, compressed or not


def weights_sha256(model_folder: Path) -> str:
    with (model_folder / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
