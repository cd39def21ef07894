"""What rounding weights costs: perplexity and greedy agreement with fp32, on unseen books and on raw WikiText-2.

    python -m benchmarks.weight_quality --data eval-data            # the demo model, 24 windows of 512 tokens
    python -m benchmarks.weight_quality --data eval-data --model model_weights/gpt2 --windows 200

--data: a folder with books_heldout.jsonl and wikitext2_raw_test.txt, or either as .gz: see `zeroshot eval --list`.
"""

import json
from pathlib import Path

from benchmarks import command
from benchmarks.quality import BOOKS_FILE, FILE, books, compare, weights_sha256, wikitext
from zeroshot.engine.loader import load_model
from zeroshot.model.gpt2 import GPT2
from zeroshot.settings import DType, EngineSettings
from zeroshot.text.tokenizer import Tokenizer

ROUNDED: tuple[DType, ...] = ("bf16", "int8")


def main() -> None:
    parser = command.parser("weight_quality", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the text")
    parser.add_argument("--model", type=Path, default=command.DEMO, help="its folder")
    parser.add_argument("--windows", type=int, default=24, help="of each text's beginning")
    parser.add_argument("--window-tokens", type=int, default=512, help="each scored by itself")
    arguments = parser.parse_args()
    encode, texts = Tokenizer.from_folder(arguments.model).encode, (books(arguments.data), wikitext(arguments.data))
    tokens = dict(zip((BOOKS_FILE, FILE), map(encode, texts), strict=True))
    quality = {}
    for dtype in ROUNDED:
        both = models(arguments.model, dtype)
        quality[dtype] = {
            file: compare(both, token_ids, arguments.windows, arguments.window_tokens)
            for file, token_ids in tokens.items()
        }
    result = {
        "model": arguments.model.name,
        "weights_sha256": weights_sha256(arguments.model),
        "windows": arguments.windows,
        "window_tokens": arguments.window_tokens,
        "quality": quality,
    }
    command.write("weight_quality", result, arguments.output)
    print(json.dumps(quality, indent=2))


def models(folder: Path, rounded: DType) -> dict[str, GPT2]:
    dtypes: tuple[DType, ...] = ("fp32", rounded)
    return {dtype: load_model(EngineSettings(model_folder=folder, dtype=dtype, device="cpu")) for dtype in dtypes}


if __name__ == "__main__":
    main()
