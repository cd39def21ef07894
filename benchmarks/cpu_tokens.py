"""How the systems that `cpu.py` compares choose their tokens."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sampling:
    temperature: float
    top_k: int
    top_p: float

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0


GREEDY = Sampling(temperature=0.0, top_k=0, top_p=1.0)
SAMPLED = Sampling(temperature=0.8, top_k=40, top_p=0.95)
"""llama.cpp's defaults, but for min-p, which CTranslate2 lacks."""
