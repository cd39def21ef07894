"""What speculative decoding gains one greedy stream: tokens a step, and its speed beside the same engine without.

    python -m benchmarks.speculative --data eval-data                        # n-grams of the text itself
    python -m benchmarks.speculative --data eval-data --model gpt2-xl --draft distilgpt2     # and a draft model

Prompts are the first windows of the raw WikiText-2 test set (`zeroshot eval --list` names the file), and short texts
that repeat themselves on purpose. The command fails if a single token is another one than without. Rounds are
interleaved, a first one not counted, and medians compared: a step of seven positions takes longer than one of one.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

from rich.progress import track

from benchmarks import command
from benchmarks.command import ROOT
from benchmarks.quality import FILE, weights_sha256, wikitext
from zeroshot.engine.engine import Engine
from zeroshot.engine.loader import load_engine
from zeroshot.model.hub import fetch_model
from zeroshot.settings import EngineSettings
from zeroshot.text.tokenizer import Tokenizer
from zeroshot.types import GenerateRequest, SamplingParams

REPETITIVE = (
    "one, two, three, four, one, two, three, four, one, two,",
    "Name: Ada. City: London.\nName: Alan. City: London.\nName: Grace. City:",
    "The cat sat on the mat. The dog sat on the mat. The bird sat on the",
)


def main() -> None:
    parser = command.parser("speculative", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the text")
    parser.add_argument("--model", default=str(command.DEMO), help="a name or folder, as for zeroshot serve")
    parser.add_argument("--draft", help="a smaller model with the same tokens")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where all of them run")
    parser.add_argument("--dtype", default="fp32", help="of both models")
    parser.add_argument("--rounds", type=int, default=5, help="that count")
    parser.add_argument("--prompts", type=int, default=8, help="windows of the text")
    parser.add_argument("--prompt-tokens", type=int, default=128, help="of each window")
    parser.add_argument("--max-tokens", type=int, default=128, help="generated after each prompt")
    arguments = parser.parse_args()
    folder = fetch_model(arguments.model, ROOT / "model_weights")
    tokenizer = Tokenizer.from_folder(folder)
    text, length = tokenizer.encode(wikitext(arguments.data)), arguments.prompt_tokens
    texts = {
        "WikiText-2": [text[i * length : (i + 1) * length] for i in range(arguments.prompts)],
        "repetitive": [tokenizer.encode(prompt) for prompt in REPETITIVE],
    }
    engines = load_engines(folder, arguments.draft, arguments.dtype, arguments.device)
    result = {
        "model": folder.name,
        "draft": arguments.draft,
        "device": arguments.device,
        "dtype": arguments.dtype,
        "weights_sha256": weights_sha256(folder),
        "text": FILE,
        "max_tokens": arguments.max_tokens,
        "gains": compare(engines, texts, arguments.max_tokens, arguments.rounds),
    }
    command.write("speculative", result, arguments.output)
    print(json.dumps(result["gains"], indent=2))


def load_engines(model_folder: Path, draft: str | None, dtype: str, device: str = "cpu") -> dict[str, Engine]:
    """Who guesses -> an engine. The first one is without."""
    options: dict[str, dict[str, Any]] = {"off": {}}
    options |= {f"{ngram}-gram": {"speculative_ngram": ngram} for ngram in (1, 2, 3)}
    if draft is not None:
        options["draft"] = {"speculative_model": draft, "weights_dir": ROOT / "model_weights"}
    settings = {"model_folder": model_folder, "device": device, "dtype": dtype}
    return {name: load_engine(EngineSettings.model_validate(settings | chosen)) for name, chosen in options.items()}


def compare(
    engines: dict[str, Engine], texts: dict[str, list[list[int]]], max_tokens: int, num_rounds: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Text -> who guesses -> tokens a step, and how many times as fast as without.

    Raises RuntimeError if tokens differ.
    """
    seconds: dict[tuple[str, str], list[float]] = {(text, name): [] for text in texts for name in engines}
    expected: dict[str, list[list[int]]] = {}
    gains: dict[str, dict[str, dict[str, float]]] = {text: {} for text in texts}
    for number in track(range(num_rounds + 1), description="Rounds", transient=True):
        for text, name in seconds:
            started = time.perf_counter()
            outputs, steps = _generate(engines[name], texts[text], max_tokens)
            if number > 0:
                seconds[text, name].append(time.perf_counter() - started)
            if outputs != expected.setdefault(text, outputs):
                raise RuntimeError(f"other tokens with {name} on {text}")
            gains[text][name] = {"tokens_per_step": round(sum(map(len, outputs)) / steps, 2)}
    for text, name in seconds:
        without, taken = (statistics.median(seconds[text, key]) for key in (next(iter(engines)), name))
        gains[text][name]["speed"] = round(without / taken, 2)
    return gains


def _generate(engine: Engine, prompts: list[list[int]], max_tokens: int) -> tuple[list[list[int]], int]:
    """One after the other. Their tokens, and how many steps had one in them."""
    outputs: list[list[int]] = []
    num_steps = 0
    for index, prompt in enumerate(prompts):
        params: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0.0, "ignore_eos": True}
        engine.add_request(
            GenerateRequest(request_id=str(index), prompt_token_ids=prompt, sampling_params=SamplingParams(**params))
        )
        outputs.append([])
        while engine.has_work:
            tokens = [token for output in engine.step() for token in output.token_ids]
            num_steps += bool(tokens)
            outputs[-1] += tokens
    return outputs, num_steps


if __name__ == "__main__":
    main()
