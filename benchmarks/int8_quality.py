"""What rounding to int8 costs: perplexity and greedy agreement with fp32, on unseen books and on raw WikiText-2.

    python -m benchmarks.int8_quality --data eval-data            # the demo model, 24 windows of 512 tokens
    python -m benchmarks.int8_quality --data eval-data --model model_weights/gpt2 --windows 200

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


def main() -> None:
    parser = command.parser("int8_quality", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the text")
    parser.add_argument("--model", type=Path, default=command.DEMO, help="its folder")
    parser.add_argument("--windows", type=int, default=24, help="of each text's beginning")
    parser.add_argument("--window-tokens", type=int, default=512, help="each scored by itself")
    arguments = parser.parse_args()
    encode, both = Tokenizer.from_folder(arguments.model).encode, models(arguments.model)
    quality = {
        file: compare(both, encode(text), arguments.windows, arguments.window_tokens)
        for file, text in ((BOOKS_FILE, books(arguments.data)), (FILE, wikitext(arguments.data)))
    }
    result = {
        "model": arguments.model.name,
        "weights_sha256": weights_sha256(arguments.model),
        "windows": arguments.windows,
        "window_tokens": arguments.window_tokens,
        "texts": quality,
    }
    command.write("int8_quality", result, arguments.output)
    print(json.dumps(quality, indent=2))


def models(folder: Path) -> dict[str, GPT2]:
    dtypes: tuple[DType, ...] = ("fp32", "int8")
    return {dtype: load_model(EngineSettings(model_folder=folder, dtype=dtype, device="cpu")) for dtype in dtypes}


if __name__ == "__main__":
    main()
