"""What an FP8 KV cache costs: perplexity and greedy agreement with the plain cache, on the raw WikiText-2 test set.

    python -m benchmarks.kv_quality --data eval-data                         # the demo model, 96 windows of 512 tokens
    python -m benchmarks.kv_quality --data eval-data --model model_weights/gpt2 --windows 200
    python -m benchmarks.kv_quality --data eval-data --model model_weights/gpt2 --device cuda --dtype bf16

--data: a folder with wikitext2_raw_test.txt or .txt.gz, as `zeroshot eval --list` names it. On a CPU the ops'
references run, which round a key to the same FP8 value as the kernels; on a GPU the kernels do. Every position attends
to keys and values as the cache has them, its own too. The command fails if perplexity grows by more than 0.1 %.
"""

import json
import sys
from pathlib import Path

import torch

from benchmarks import command
from benchmarks.quality import FILE, compare, weights_sha256, wikitext
from zeroshot.engine.loader import load_model
from zeroshot.model.config import GPT2Config
from zeroshot.model.gpt2 import GPT2
from zeroshot.model.ops import Ops, device_backend
from zeroshot.model.weights import load_weights
from zeroshot.settings import DType, EngineSettings
from zeroshot.text.tokenizer import Tokenizer

GATE_PERCENT = 0.1
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def main() -> None:
    parser = command.parser("kv_quality", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the text")
    parser.add_argument("--model", type=Path, default=command.DEMO, help="its folder")
    parser.add_argument("--windows", type=int, default=96, help="of the text's beginning")
    parser.add_argument("--window-tokens", type=int, default=512, help="each scored by itself")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where both run")
    parser.add_argument("--dtype", choices=_DTYPES, default="fp32", help="of both models, and of the plain cache")
    arguments = parser.parse_args()
    both = models(arguments.model, arguments.device, arguments.dtype)
    tokens = Tokenizer.from_folder(arguments.model).encode(wikitext(arguments.data))
    quality = compare(both, tokens, arguments.windows, arguments.window_tokens)
    result = {
        "model": arguments.model.name,
        "weights_sha256": weights_sha256(arguments.model),
        "text": FILE,
        "windows": arguments.windows,
        "window_tokens": arguments.window_tokens,
        "device": arguments.device,
        "dtype": arguments.dtype,
        "kernels": both["fp8"].backend.states or "references",
        "gate_percent": GATE_PERCENT,
        **quality,
    }
    command.write("kv_quality", result, arguments.output)
    print(json.dumps(quality, indent=2))
    if quality["perplexity_change_percent"] > GATE_PERCENT:
        sys.exit(f"perplexity grew by more than {GATE_PERCENT} %")


def models(folder: Path, device: str, dtype: DType) -> dict[str, GPT2]:
    return {name: _load(folder, device, dtype, is_fp8) for name, is_fp8 in (("plain", False), ("fp8", True))}


def _load(folder: Path, device: str, dtype: DType, is_fp8: bool) -> GPT2:
    if device == "cuda":
        kv_dtype = "fp8" if is_fp8 else "auto"
        return load_model(EngineSettings(model_folder=folder, dtype=dtype, device="cuda", kv_dtype=kv_dtype))
    config = GPT2Config.from_folder(folder)
    weights = load_weights(folder, config, dtype=_DTYPES[dtype], device=torch.device("cpu"))
    return GPT2(config, weights, device_backend(Ops(), {}, kv_dtype=torch.float8_e4m3fn if is_fp8 else None))


if __name__ == "__main__":
    main()
