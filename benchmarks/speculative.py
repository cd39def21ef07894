"""Tokens a step with speculative decoding by prompt lookup, greedy, one stream: the same tokens in fewer steps.

    python -m benchmarks.speculative --data eval-data

Prompts are the first windows of the raw WikiText-2 test set (`zeroshot eval --list` names the file), and short texts
that repeat themselves on purpose. The command fails if a single token is another one than without. It counts steps and
takes no times: a step of seven positions is longer than one of a single one.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.int8_quality import DEMO, FILE, ROOT, weights_sha256, wikitext
from benchmarks.machine import describe_machine
from zeroshot.engine.engine import Engine
from zeroshot.engine.loader import load_engine
from zeroshot.settings import EngineSettings
from zeroshot.text.tokenizer import Tokenizer
from zeroshot.types import GenerateRequest, SamplingParams

REPETITIVE = (
    "one, two, three, four, one, two, three, four, one, two,",
    "Name: Ada. City: London.\nName: Alan. City: London.\nName: Grace. City:",
    "The cat sat on the mat. The dog sat on the mat. The bird sat on the",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "speculative.json")
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_folder(arguments.model)
    text, length = tokenizer.encode(wikitext(arguments.data)), arguments.prompt_tokens
    texts = {
        "WikiText-2": [text[i * length : (i + 1) * length] for i in range(arguments.prompts)],
        "repetitive": [tokenizer.encode(prompt) for prompt in REPETITIVE],
    }
    result = {
        "command": "python -m benchmarks.speculative " + " ".join(sys.argv[1:]),
        "machine": describe_machine(),
        "model": arguments.model.name,
        "weights_sha256": weights_sha256(arguments.model),
        "text": FILE,
        "max_tokens": arguments.max_tokens,
        "tokens_per_step": compare(arguments.model, texts, arguments.max_tokens),
    }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["tokens_per_step"], indent=2))


def compare(model_folder: Path, texts: dict[str, list[list[int]]], max_tokens: int) -> dict[str, dict[str, float]]:
    """Text -> n-gram -> tokens a step. Raises RuntimeError if tokens differ."""
    engines = {ngram: _engine(model_folder, ngram) for ngram in (0, 1, 2, 3)}
    found: dict[str, dict[str, float]] = {}
    for name, prompts in texts.items():
        expected = None
        for ngram, engine in engines.items():
            outputs, steps = _generate(engine, prompts, max_tokens)
            if expected is not None and outputs != expected:
                raise RuntimeError(f"other tokens with n-grams of {ngram} on {name}")
            expected = outputs
            num_tokens = sum(len(tokens) for tokens in outputs)
            found.setdefault(name, {})["off" if ngram == 0 else f"{ngram}-gram"] = round(num_tokens / steps, 2)
    return found


def _engine(model_folder: Path, ngram: int) -> Engine:
    return load_engine(EngineSettings(model_folder=model_folder, device="cpu", dtype="fp32", speculative_ngram=ngram))


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
