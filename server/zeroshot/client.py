"""`EngineClient`: the only door between HTTP and the engine process. Interface first; see `generate` and `complete`."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from zeroshot.types import FinishReason, GenerateRequest, TokenLogprob


@dataclass(slots=True)
class ChoiceDelta:
    """What one step added to one choice of a request."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    """The stop string or the token id that ended the choice."""
    num_cached_tokens: int = 0


class Completion(ChoiceDelta):
    """A finished choice: all its deltas in one."""


class EngineClient:
    async def generate(self, request: GenerateRequest) -> AsyncIterator[ChoiceDelta]:
        """Deltas of all choices as they come; ends when every choice has finished. Leaving early aborts the rest."""
        raise NotImplementedError
        yield

    async def complete(self, request: GenerateRequest) -> list[Completion]:
        """All choices, finished, in order of their index."""
        raise NotImplementedError
