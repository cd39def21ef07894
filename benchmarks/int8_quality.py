"""What rounding to int8 costs: perplexity and greedy agreement with fp32, on the raw WikiText-2 test set.

    python -m benchmarks.int8_quality --data eval-data            # the demo model, 24 windows of 512 tokens
    python -m benchmarks.int8_quality --data eval-data --model model_weights/gpt2 --windows 200

--data: a folder with wikitext2_raw_test.txt or .txt.gz, as `zeroshot eval --list` names it.
"""

import argparse
import gzip
import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import describe_machine
from zeroshot.engine.loader import load_model
from zeroshot.engine.selfcheck import prompt_logits
from zeroshot.model.gpt2 import GPT2
from zeroshot.settings import DType, EngineSettings
from zeroshot.text.tokenizer import Tokenizer

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "model_weights" / "demo"
FILE = "wikitext2_raw_test.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--window-tokens", type=int, default=512)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "int8_quality.json")
    arguments = parser.parse_args()
    quality = compare(arguments.model, wikitext(arguments.data), arguments.windows, arguments.window_tokens)
    result = {
        "command": "python -m benchmarks.int8_quality " + " ".join(sys.argv[1:]),
        "machine": describe_machine(),
        "model": arguments.model.name,
        "weights_sha256": weights_sha256(arguments.model),
        "text": FILE,
        "windows": arguments.windows,
        "window_tokens": arguments.window_tokens,
        **quality,
    }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(quality, indent=2))


def weights_sha256(model_folder: Path) -> str:
    with (model_folder / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def wikitext(folder: Path) -> str:
    """Raises FileNotFoundError if the folder has no copy of the test set."""
    compressed = folder / f"{FILE}.gz"
    if compressed.exists():
        return gzip.decompress(compressed.read_bytes()).decode()
    return (folder / FILE).read_text(encoding="utf-8")


def compare(model_folder: Path, text: str, num_windows: int, window_tokens: int) -> dict[str, Any]:
    """Perplexity per token of both, and how often both prefer the same token."""
    needed = num_windows * window_tokens
    token_ids = torch.tensor(Tokenizer.from_folder(model_folder).encode(text)[:needed])
    windows = token_ids[: len(token_ids) // window_tokens * window_tokens].view(-1, window_tokens)
    exact, rounded = _load(model_folder, "fp32"), _load(model_folder, "int8")
    nats = {"fp32": 0.0, "int8": 0.0}
    num_agreed = num_scored = 0
    for window in windows:
        logits = {"fp32": prompt_logits(exact, window.tolist(), window_tokens)[:-1]}
        logits["int8"] = prompt_logits(rounded, window.tolist(), window_tokens)[:-1]
        for name, values in logits.items():
            nats[name] += loss(values, window[1:])
        num_agreed += int((logits["fp32"].argmax(-1) == logits["int8"].argmax(-1)).sum())
        num_scored += window_tokens - 1
    perplexity = {name: math.exp(total / num_scored) for name, total in nats.items()}
    return {
        "perplexity": {name: round(value, 3) for name, value in perplexity.items()},
        "perplexity_change_percent": round(100 * (perplexity["int8"] / perplexity["fp32"] - 1), 3),
        "greedy_agreement_percent": round(100 * num_agreed / num_scored, 2),
    }


def _load(folder: Path, dtype: DType) -> GPT2:
    return load_model(EngineSettings(model_folder=folder, dtype=dtype, device="cpu"))


def loss(logits: Tensor, targets: Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(logits.double(), targets, reduction="sum"))


if __name__ == "__main__":
    main()
