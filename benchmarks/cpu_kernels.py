"""The CPU's C++ kernels beside the PyTorch operators that they replace: a model's whole steps, without HTTP.

    python -m benchmarks.cpu_kernels                  # steps of 1, 8 and 32 new tokens, and of a prompt's 256
    python -m benchmarks.cpu_kernels --size tiny --rounds 1 --steps 1 8

Each system runs one step after another over the same cache, in turn with the others; medians of the rounds. "called one
by one" are the C++ kernels as `Layer.forward` calls them, without the loop over the layers that they have themselves.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from benchmarks import command
from benchmarks.random_checkpoint import SIZES, random_checkpoint
from zeroshot.engine.loader import load_model
from zeroshot.model.gpt2 import GPT2, AttentionMetadata
from zeroshot.model.native_linear import WeightFormat
from zeroshot.model.native_ops import why_unavailable
from zeroshot.settings import EngineSettings

CONTEXT_LEN = 64
PROMPT_CHUNK = 256
SYSTEMS: dict[str, tuple[WeightFormat, bool, bool]] = {
    "PyTorch, fp32": ("fp32", False, False),
    "C++ kernels, fp32, called one by one": ("fp32", True, False),
    "C++ kernels, fp32": ("fp32", True, True),
    "PyTorch, bf16": ("bf16", False, False),
    "C++ kernels, bf16": ("bf16", True, True),
    "PyTorch, int8": ("int8", False, False),
    "C++ kernels, int8, called one by one": ("int8", True, False),
    "C++ kernels, int8": ("int8", True, True),
}
"""name -> (weights, by the C++ kernels, by their loop over the layers)"""


class Step:
    """One step of the model: `num_seqs` sequences of CONTEXT_LEN tokens get another, or one reads PROMPT_CHUNK."""

    def __init__(self, model: GPT2, num_tokens: int) -> None:
        is_prompt = num_tokens >= PROMPT_CHUNK
        num_seqs, context_len = (1, num_tokens) if is_prompt else (num_tokens, CONTEXT_LEN)
        block_size = model.backend.kv_block_size
        blocks_each = -(-context_len // block_size)
        tables = torch.arange(num_seqs * blocks_each).view(num_seqs, blocks_each)
        first = 0 if is_prompt else context_len - 1
        self.model, self.cache = model, model.allocate_kv_cache(num_seqs * blocks_each, block_size)
        self.positions = torch.arange(first, context_len).repeat(num_seqs)
        slots = tables[:, :, None] * block_size + torch.arange(block_size)
        self.attention = AttentionMetadata(
            slot_mapping=slots.view(num_seqs, -1)[:, first:context_len].reshape(-1),
            block_tables=tables,
            context_lens=[context_len] * num_seqs,
            query_lens=[context_len - first] * num_seqs,
            num_decodes=0 if is_prompt else num_seqs,
        )
        self.token_ids = torch.arange(len(self.positions))

    @torch.inference_mode()
    def tokens_per_second(self, min_seconds: float) -> float:
        self._run()
        steps, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < min_seconds:
            self._run()
            steps += 1
        return steps * len(self.positions) / elapsed

    def _run(self) -> None:
        hidden = self.model.forward(self.token_ids, self.positions, self.cache, self.attention)
        self.model.compute_logits(hidden[-1:] if self.attention.num_decodes == 0 else hidden)


def measure(checkpoint: Path, steps: list[int], rounds: int, min_seconds: float) -> dict[str, dict[str, list[float]]]:
    """{system: {tokens a step: tokens/s, one number a round}}"""
    models = {name: build(checkpoint, *kind) for name, kind in SYSTEMS.items()}
    rates: dict[str, dict[str, list[float]]] = {name: {str(n): [] for n in steps} for name in SYSTEMS}
    for num_tokens, _ in track([(n, r) for n in steps for r in range(rounds)], transient=True):
        for name, model in models.items():
            rates[name][str(num_tokens)].append(round(Step(model, num_tokens).tokens_per_second(min_seconds), 1))
    return rates


def build(checkpoint: Path, dtype: WeightFormat, is_native: bool, has_loop: bool) -> GPT2:
    model = load_model(
        EngineSettings(model_folder=checkpoint, dtype=dtype, device="cpu", cpu_kernels="auto" if is_native else "off")
    )
    if not has_loop:
        model.layer_loop = None
    return model


def markdown_table(result: dict[str, Any]) -> str:
    """The table of docs/cpu.md: medians, tokens/s."""
    rows = result["tokens_per_second"]
    steps = list(next(iter(rows.values())))
    titles = [f"{n} of a prompt" if int(n) >= PROMPT_CHUNK else f"{n} at once" for n in steps]
    lines = ["| | " + " | ".join(titles) + " |", "|---" * (len(steps) + 1) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{statistics.median(row[n]):.0f}" for n in steps) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = command.parser("cpu_kernels", __doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 8, 32, PROMPT_CHUNK], help="tokens a step")
    parser.add_argument("--rounds", type=int, default=5, help="of all systems, by turns")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each system in each round, at least")
    parser.add_argument("--size", choices=SIZES, default="124m", help="the model's shape")
    parser.add_argument("--checkpoints", type=Path, default=Path(tempfile.gettempdir()), help="where to keep them")
    arguments = parser.parse_args()
    reason = why_unavailable()
    if reason is not None:
        sys.exit(f"The C++ kernels are not available here: {reason}")
    checkpoint = random_checkpoint(arguments.size, arguments.checkpoints)
    result = {
        "model": f"GPT-2 {arguments.size}, random values",
        "threads": torch.get_num_threads(),
        "context_tokens": CONTEXT_LEN,
        "tokens_per_second": measure(checkpoint, arguments.steps, arguments.rounds, arguments.seconds),
    }
    command.write("cpu_kernels", result, arguments.output)
    print(markdown_table(result))


if __name__ == "__main__":
    main()
