"""`ModelClient`: what the HTTP side needs of whatever runs the model. `api/`, `tasks/` and `app.py` know only this.

`client.py` has the one for an engine on this machine, `cluster/` the one for engines on many.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Hashable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from zeroshot.errors import (
    ContextLengthExceeded,
    EngineRestarting,
    EngineUnavailable,
    InvalidRequest,
)
from zeroshot.model.config import GPT2Config
from zeroshot.telemetry.metrics import Metrics
from zeroshot.text.tokenizer import Tokenizer
from zeroshot.types import EngineStats, FinishReason, GenerateRequest, TokenLogprob

EngineStatus = Literal["loading", "ready", "restarting", "refused"]
"""refused: the engine can't run the model with these settings, and no other will be started."""

REFUSED = "The engine can't run with these settings; the line it logged last says why."


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
    """The stop string or the token id that ended the choice; None if neither did."""
    num_cached_tokens: int = 0
    beam_score: float | None = None


class Completion(ChoiceDelta):
    """A finished choice: all its deltas in one."""

    def add(self, delta: ChoiceDelta) -> None:
        self.text += delta.text
        self.token_ids += delta.token_ids
        self.logprobs += delta.logprobs
        self.prompt_logprobs += delta.prompt_logprobs
        self.finish_reason = delta.finish_reason
        self.stop_reason = delta.stop_reason
        self.beam_score = delta.beam_score
        self.num_cached_tokens = max(self.num_cached_tokens, delta.num_cached_tokens)


class ModelClient(ABC):
    """`start` and `stop` it inside a running event loop. `status` is "ready" only after an engine's first token."""

    def __init__(self, model_folder: Path, *, max_queued_seqs: int) -> None:
        config = GPT2Config.from_folder(model_folder)
        self.tokenizer = Tokenizer.from_folder(model_folder)
        self.model_name = model_folder.name
        self.max_model_len = config.n_positions
        self.vocab_size = config.vocab_size
        self.eos_token_id = config.eos_token_id
        self.max_queued_seqs = max_queued_seqs
        """Sequences an engine holds at once, running and waiting."""
        self.status: EngineStatus = "loading"
        self.stats = EngineStats()
        self.metrics = Metrics(self.model_name)

    @property
    @abstractmethod
    def num_restarts(self) -> int:
        """How often an engine was replaced."""

    @property
    @abstractmethod
    def engines(self) -> Hashable:
        """Which engines run: differs from an earlier value when a new one, with an empty cache, is among them."""

    @abstractmethod
    async def start(self) -> None:
        """Returns at once; see `status` and `wait_until_ready`."""

    @abstractmethod
    async def stop(self) -> None: ...

    def share_among(self, num_callers: int) -> None:  # noqa: B027 - optional
        """How many callers have a key. A client that bounds what it holds lets none of several have more than half."""

    @abstractmethod
    def generate(self, request: GenerateRequest, *, is_patient: bool = False) -> AsyncGenerator[ChoiceDelta, None]:
        """Deltas of all choices as they come; ends when every choice has finished. Leaving early aborts the rest.

        A patient caller gets each choice in one delta, unless its text has to be watched for where it ends.

        Raises InvalidRequest, Overloaded or EngineUnavailable before the first delta, GenerationFailed,
        EngineRestarting or DeadlineExceeded at any time. Close it when leaving early: `async with
        aclosing(client.generate(...))`.
        """

    @abstractmethod
    def check_room(self, requests: Sequence[GenerateRequest]) -> None:
        """Raises what `generate` would for these together, as far as is known before any of them is sent."""

    async def complete(self, request: GenerateRequest) -> list[Completion]:
        """All choices, finished, in order of their index."""
        completions = [Completion(index) for index in range(request.n)]
        async with aclosing(self.generate(request, is_patient=True)) as deltas:
            async for delta in deltas:
                completions[delta.index].add(delta)
        return completions

    async def wait_until_ready(self, timeout_s: float) -> None:
        """Raises EngineUnavailable when it takes longer, or will never be."""
        deadline = time.monotonic() + timeout_s
        while self.status != "ready":
            if self.status == "refused":
                raise EngineUnavailable(REFUSED)
            if time.monotonic() > deadline:
                raise EngineUnavailable(f"The engine was not ready after {timeout_s:g} s.")
            await asyncio.sleep(0.02)

    def check(self, request: GenerateRequest) -> None:
        """Raises InvalidRequest for a prompt that can't be run, EngineUnavailable if no engine can run any."""
        num_prompt_tokens, max_tokens = len(request.prompt_token_ids), request.sampling_params.max_tokens
        if num_prompt_tokens == 0:
            raise InvalidRequest("The prompt is empty: give it at least one token.", field="prompt")
        if num_prompt_tokens + max_tokens > self.max_model_len:
            raise ContextLengthExceeded(num_prompt_tokens, max_tokens, self.max_model_len)
        if self.status == "loading":
            raise EngineUnavailable("The model is still loading. Try again in a moment.")
        if self.status == "restarting":
            raise EngineRestarting("The engine is being restarted. Try again in a moment.")
        if self.status == "refused":
            raise EngineUnavailable(REFUSED)
