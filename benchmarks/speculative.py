"""What speculative decoding gains: tokens that a stream gets in a step, and its speed beside the same engine without.

    python -m benchmarks.speculative --data eval-data                        # n-grams of the text itself
    python -m benchmarks.speculative --data eval-data --model gpt2-xl --draft distilgpt2     # and a draft model

Prompts are the first windows of the raw WikiText-2 test set (`zeroshot eval --list` names the file), decoded greedily,
at a temperature, and several at once; and short texts that repeat themselves on purpose. The command fails if a single
token is another one than without. Rounds are interleaved, a first one not counted, and medians compared: a step of
eight positions takes longer than one of one.
"""

import statistics
import time
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Case:
    prompts: list[list[int]]
    temperature: float = 0.0
    at_once: int = 1


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
    windows = [text[i * length : (i + 1) * length] for i in range(arguments.prompts)]
    cases = {
        "greedy": Case(windows),
        "temperature 0.7": Case(windows, temperature=0.7),
        "temperature 1": Case(windows, temperature=1.0),
        "greedy, 2 at once": Case(windows, at_once=2),
        "greedy, 4 at once": Case(windows, at_once=4),
        "repetitive, greedy": Case([tokenizer.encode(prompt) for prompt in REPETITIVE]),
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
        "gains": compare(engines, cases, arguments.max_tokens, arguments.rounds),
    }
    command.write("speculative", result, arguments.output)
    print(markdown_table(result))


def load_engines(model_folder: Path, draft: str | None, dtype: str, device: str = "cpu") -> dict[str, Engine]:
    """Who guesses -> an engine. The first one is without."""
    options: dict[str, dict[str, Any]] = {"off": {"speculative_ngram": 0}}
    options |= {f"{ngram}-gram": {"speculative_ngram": ngram} for ngram in (1, 2, 3)}
    if draft is not None:
        options["draft"] = {"speculative_model": draft, "weights_dir": ROOT / "model_weights"}
    settings = {"model_folder": model_folder, "device": device, "dtype": dtype}
    return {name: load_engine(EngineSettings.model_validate(settings | chosen)) for name, chosen in options.items()}


def compare(
    engines: dict[str, Engine], cases: dict[str, Case], max_tokens: int, num_rounds: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Case -> who guesses -> tokens a step, and how many times as fast as without.

    Raises RuntimeError if tokens differ.
    """
    seconds: dict[tuple[str, str], list[float]] = {(case, name): [] for case in cases for name in engines}
    expected: dict[str, list[list[int]]] = {}
    gains: dict[str, dict[str, dict[str, float]]] = {case: {} for case in cases}
    for number in track(range(num_rounds + 1), description="Rounds", transient=True):
        for case, name in seconds:
            started = time.perf_counter()
            outputs, steps = _generate(engines[name], cases[case], max_tokens)
            if number > 0:
                seconds[case, name].append(time.perf_counter() - started)
            if outputs != expected.setdefault(case, outputs):
                raise RuntimeError(f"other tokens with {name}, {case}")
            gains[case][name] = {"tokens_per_step": round(sum(map(len, outputs)) / steps, 2)}
    for case, name in seconds:
        without, taken = (statistics.median(seconds[case, key]) for key in (next(iter(engines)), name))
        gains[case][name]["speed"] = round(without / taken, 2)
    return gains


def _generate(engine: Engine, case: Case, max_tokens: int) -> tuple[list[list[int]], int]:
    """Each prompt's tokens, and in how many steps they came: one that gave two streams tokens counts twice."""
    outputs: list[list[int]] = [[] for _ in case.prompts]
    num_steps = 0
    for first in range(0, len(outputs), case.at_once):
        for index in range(first, min(first + case.at_once, len(outputs))):
            params = SamplingParams(max_tokens=max_tokens, temperature=case.temperature, seed=index, ignore_eos=True)
            prompt = case.prompts[index]
            engine.add_request(GenerateRequest(request_id=str(index), prompt_token_ids=prompt, sampling_params=params))
        while engine.has_work:
            for output in engine.step():
                outputs[int(output.request_id)] += output.token_ids
                num_steps += bool(output.token_ids)
    return outputs, num_steps


def markdown_table(result: dict[str, Any]) -> str:
    """The table of docs/cpu.md: how many times as fast, and tokens a step."""
    gains = result["gains"]
    names = [name for name in next(iter(gains.values())) if name != "off"]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for case, row in gains.items():
        cells = [f"{row[name]['speed']:.2f}x ({row[name]['tokens_per_step']:.2f})" for name in names]
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
