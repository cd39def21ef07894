"""What an FP8 KV cache costs: perplexity and greedy agreement with the plain cache, on the raw WikiText-2 test set.

    python -m benchmarks.kv_quality --data eval-data                         # the demo model, 96 windows of 512 tokens
    python -m benchmarks.kv_quality --data eval-data --model model_weights/gpt2 --windows 200
    python -m benchmarks.kv_quality --data eval-data --model model_weights/gpt2 --device cuda --dtype bf16

--data: a folder with wikitext2_raw_test.txt or .txt.gz, as `zeroshot eval --list` names it. On a CPU the ops'
references run, which round a key to the same FP8 value as the kernels; on a GPU the kernels do. Every position attends
to keys and values as the cache has them, its own too. The command fails if perplexity grows by more than 0.1 %.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.int8_quality import DEMO, FILE, ROOT, loss, weights_sha256, wikitext
from benchmarks.machine import describe_machine
from zeroshot.engine.loader import load_model
from zeroshot.engine.selfcheck import prompt_logits
from zeroshot.model.config import GPT2Config
from zeroshot.model.gpt2 import GPT2
from zeroshot.model.ops import Ops, device_backend
from zeroshot.model.weights import load_weights
from zeroshot.settings import DType, EngineSettings
from zeroshot.text.tokenizer import Tokenizer

GATE_PERCENT = 0.1
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--windows", type=int, default=96)
    parser.add_argument("--window-tokens", type=int, default=512)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=_DTYPES, default="fp32")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "kv_quality.json")
    arguments = parser.parse_args()
    exact, rounded = (_load(arguments.model, arguments.device, arguments.dtype, is_fp8) for is_fp8 in (False, True))
    tokens = Tokenizer.from_folder(arguments.model).encode(wikitext(arguments.data))
    quality = compare(exact, rounded, tokens, arguments.windows, arguments.window_tokens)
    result = {
        "command": "python -m benchmarks.kv_quality " + " ".join(sys.argv[1:]),
        "machine": describe_machine(),
        "model": arguments.model.name,
        "weights_sha256": weights_sha256(arguments.model),
        "text": FILE,
        "windows": arguments.windows,
        "window_tokens": arguments.window_tokens,
        "device": arguments.device,
        "dtype": arguments.dtype,
        "kernels": rounded.backend.states or "references",
        **quality,
    }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(quality, indent=2))
    if quality["perplexity_change_percent"] > GATE_PERCENT:
        sys.exit(f"perplexity grew by more than {GATE_PERCENT} %")


def compare(exact: GPT2, rounded: GPT2, tokens: list[int], num_windows: int, window_tokens: int) -> dict[str, Any]:
    """Perplexity per token of both, and how often both prefer the same token."""
    token_ids = torch.tensor(tokens[: num_windows * window_tokens])
    windows = token_ids[: len(token_ids) // window_tokens * window_tokens].view(-1, window_tokens)
    nats = {"plain": 0.0, "fp8": 0.0}
    num_agreed = num_scored = 0
    for window in windows:
        plain, fp8 = (prompt_logits(model, window.tolist(), window_tokens)[:-1].cpu() for model in (exact, rounded))
        nats["plain"] += loss(plain, window[1:])
        nats["fp8"] += loss(fp8, window[1:])
        num_agreed += int((plain.argmax(-1) == fp8.argmax(-1)).sum())
        num_scored += window_tokens - 1
    perplexity = {name: math.exp(total / num_scored) for name, total in nats.items()}
    return {
        "perplexity": {name: round(value, 4) for name, value in perplexity.items()},
        "perplexity_change_percent": round(100 * (perplexity["fp8"] / perplexity["plain"] - 1), 4),
        "greedy_agreement_percent": round(100 * num_agreed / num_scored, 2),
        "gate_percent": GATE_PERCENT,
    }


def _load(folder: Path, device: str, dtype: DType, is_fp8: bool) -> GPT2:
    if device == "cuda":
        kv_dtype = "fp8" if is_fp8 else "auto"
        return load_model(EngineSettings(model_folder=folder, dtype=dtype, device="cuda", kv_dtype=kv_dtype))
    config = GPT2Config.from_folder(folder)
    weights = load_weights(folder, config, dtype=_DTYPES[dtype], device=torch.device("cpu"))
    return GPT2(config, weights, device_backend(Ops(), {}, kv_dtype=torch.float8_e4m3fn if is_fp8 else None))


if __name__ == "__main__":
    main()
