"""The contract of what runs a step, on whatever device: `engine.py` and `draft.py` know nothing else of it.

`model_runner.py` fulfils it on a CPU, `cuda_runner.py` on a GPU; `assembly.py` chooses.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from zeroshot.engine.sampler import SampledToken
from zeroshot.engine.scheduler import ScheduledSequence
from zeroshot.engine.sequence import Sequence
from zeroshot.model.gpt2 import GPT2, KVCache
from zeroshot.types import TokenLogprob


@dataclass(frozen=True, slots=True)
class StepResult:
    sampled: list[tuple[Sequence, SampledToken]]
    """A sequence may be there several times, with its tokens in order: what follows a guess that was right, and steps
    that ran before the host looked."""
    prompt_logprobs: list[tuple[Sequence, list[TokenLogprob | None]]]
    """Of the prompt tokens that this step has scored. None: not finite."""
    not_finite: list[Sequence]
    """Sequences whose hidden states became NaN or inf: what they put into the KV cache is not to be trusted."""

    @classmethod
    def joined(cls, results: Iterable["StepResult"]) -> "StepResult":
        parts = list(results)
        return cls(
            [item for part in parts for item in part.sampled],
            [item for part in parts for item in part.prompt_logprobs],
            [sequence for part in parts for sequence in part.not_finite],
        )


def not_finite(sequences: list[Sequence], are_finite: list[bool]) -> list[Sequence]:
    """Those that have failed. are_finite: whether the final states of each one's last token in the step are.

    A NaN anywhere in a sequence reaches that token through attention.
    """
    return [sequence for sequence, is_finite in zip(sequences, are_finite, strict=True) if not is_finite]


class Runner(Protocol):
    """Owns a model and its KV cache. Changes no sequence: that is up to whoever reads the result."""

    model: GPT2
    kv_cache: KVCache

    def execute(self, scheduled: list[ScheduledSequence], *, steps_ahead: int) -> StepResult:
        """Run the scheduled tokens, fill their KV slots, sample where a sequence's newest token was among them.

        steps_ahead: how many decode steps may run on the device before the host has looked at those ahead of them. A
        CPU has no use for it.

        Raises whatever has failed. What the scheduled tokens have written by then is not to be trusted; the next call
        starts from what the host knows.
        """
