"""What every section is given: sizes, a clock, a deadline, and what was measured so far."""

import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from zeroshot.model.config import GPT2Config

SHAPES = {
    "124m": GPT2Config(),
    "355m": GPT2Config(n_embd=1024, n_layer=24, n_head=16, n_inner=4096),
    "774m": GPT2Config(n_embd=1280, n_layer=36, n_head=20, n_inner=5120),
    "1.5b": GPT2Config(n_embd=1600, n_layer=48, n_head=25, n_inner=6400),
}
TINY = GPT2Config(vocab_size=97, n_positions=64, n_embd=32, n_layer=1, n_head=1, n_inner=128, eos_token_id=96)


@dataclass(frozen=True)
class Sizes:
    shapes: dict[str, GPT2Config]
    first_batches: tuple[int, ...]
    """Sequences that decode at once, for the first shape."""
    other_batches: tuple[int, ...]
    prompt_tokens: int
    output_tokens: int
    num_prefills: int
    dtype: torch.dtype
    http_requests: int
    http_processes: int
    http_model: str
    """One of `shapes`."""
    http_prompt_tokens: int
    http_tokens: int

    @property
    def context(self) -> int:
        """The average context while decoding."""
        return self.prompt_tokens + self.output_tokens // 2


FULL = Sizes(SHAPES, (1, 8, 64, 256, 512), (1, 64, 512), 448, 128, 8, torch.bfloat16, 512, 8, "124m", 256, 512)
DRY = Sizes({"tiny": TINY}, (1, 2), (), 8, 28, 2, torch.float32, 4, 2, "tiny", 4, 4)


@dataclass
class Run:
    device: torch.device
    is_dry: bool
    sizes: Sizes
    results: dict[str, Any] = field(default_factory=dict)
    deadline: float = 0.0
    state: Path | None = None
    """The file of the results, which keeps what was measured when the process is killed."""

    @property
    def is_late(self) -> bool:
        return time.monotonic() > self.deadline

    def attempt(self, into: dict[str, Any], name: str, function: Callable[[], Any]) -> None:
        """One case of a section. What fails (memory, most likely) or comes too late is reported; the rest goes on."""
        if self.is_late:
            into[name] = {"skipped": "the section's time was up"}
            self.save()
            return
        try:
            into[name] = function()
        except Exception as error:  # whatever it was, it is in the report
            first_line = next(iter(str(error).splitlines()), "")
            into[name] = {"failed": f"{type(error).__name__}: {first_line[:200]}"}
        self.save()
        gc.collect()  # an engine refers to itself: its weights, KV cache and graphs would stay for the next case
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def save(self) -> None:
        if self.state is not None:
            partial = self.state.with_suffix(".partial")
            partial.write_text(json.dumps(self.results))
            partial.replace(self.state)

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, function: Callable[[], object], *, is_cold: bool = True) -> float:
        """Median time on the device of a call that launches work and waits for nothing; on the CPU, of one call."""
        if self.device.type == "cuda":
            from zeroshot_kernels import timing

            return timing.seconds(function, is_cold=is_cold)
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
