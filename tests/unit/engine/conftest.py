"""Sequences without an engine."""

from collections.abc import Callable
from typing import Any

import pytest

from zeroshot.engine.sequence import Sequence
from zeroshot.types import SamplingParams


def _sequence(prompt: list[int], max_tokens: int = 0, **params: Any) -> Sequence:
    return Sequence(
        request_id="r",
        choice_index=0,
        token_ids=list(prompt),
        num_prompt_tokens=len(prompt),
        sampling_params=SamplingParams(max_tokens=max_tokens, **params),
    )


@pytest.fixture(scope="session")
def sequence_of() -> Callable[..., Sequence]:
    return _sequence
