"""The learning rate: linear warm-up, then half a cosine down to one per cent of the peak (Loshchilov and Hutter 2017).

The GPT-2 paper tuned its rate by hand on held-out text and doesn't give the shape; the warm-up and cosine are those of
its predecessor (Radford et al. 2018, section 4.1).
"""

import math
from dataclasses import dataclass

FINAL_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Schedule:
    """Ends after `max_steps`, or after `max_hours` of training time if that is given: a busy machine then takes fewer
    steps, and the rate still comes down all the way."""

    max_lr: float
    warmup_steps: int
    max_steps: int
    max_hours: float | None = None

    def progress(self, step: int, elapsed_s: float) -> float:
        """How much of the run is done, from 0 to 1; elapsed_s counts training time over all resumed runs."""
        if self.max_hours is not None:
            return min(1.0, elapsed_s / (3600 * self.max_hours))
        return min(1.0, step / self.max_steps)

    def learning_rate(self, step: int, elapsed_s: float) -> float:
        """The rate of step number `step`, counted from 0."""
        warmup = min(1.0, (step + 1) / self.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * self.progress(step, elapsed_s)))
        return self.max_lr * warmup * (FINAL_SHARE + (1 - FINAL_SHARE) * cosine)
