"""One choice of one request while the engine works on it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zeroshot.types import FinishReason, SamplingParams

if TYPE_CHECKING:
    from zeroshot.engine.beams import BeamSearch
    from zeroshot.engine.guide import Guide


@dataclass(slots=True, eq=False)
class Sequence:
    request_id: str
    choice_index: int
    token_ids: list[int]
    """The prompt, then what was generated."""
    num_prompt_tokens: int
    sampling_params: SamplingParams
    cache_salt: bytes = b""
    pin_prompt: bool = False
    guide: "Guide | None" = None
    """Which tokens may come next, if the request has a grammar."""
    beams: "BeamSearch | None" = None
    """The search that this sequence is a beam of; `choice_index` is the beam's number."""
    width: int = 1
    """How many sequences it will become: all of a search's beams, before their prompt has run."""
    block_table: list[int] = field(default_factory=list)
    """KV block ids, in order; enough for the prompt and max_tokens from admission on."""
    block_hashes: list[bytes] = field(default_factory=list)
    """Chained hash of each full block known so far."""
    has_private_hashes: bool = False
    """True from the first block on that isn't of a pinned prompt: the chain has the salt in it."""
    num_committed_blocks: int = 0
    """How many leading blocks others may share."""
    num_computed_tokens: int = 0
    """Tokens whose keys and values are in the cache."""
    num_cached_tokens: int = 0
    """How many of them were found there at admission."""
    finish_reason: FinishReason | None = None

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def num_uncomputed_tokens(self) -> int:
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def max_num_tokens(self) -> int:
        return self.num_prompt_tokens + self.sampling_params.max_tokens

    @property
    def output_token_ids(self) -> list[int]:
        return self.token_ids[self.num_prompt_tokens :]

    @property
    def is_decoding(self) -> bool:
        """True when only the newest token is left to run."""
        return self.num_uncomputed_tokens == 1 and self.num_output_tokens > 0

    @property
    def needs_host(self) -> bool:
        """Whether the host chooses its tokens, on a GPU too: no kernel there knows beam search and typical decoding."""
        return self.beams is not None or self.sampling_params.is_typical

    @property
    def is_finished(self) -> bool:
        return self.finish_reason is not None

    @property
    def max_cacheable_tokens(self) -> int:
        """How much of the prompt may come from the cache: a token whose logits are wanted has to be run."""
        limit = self.num_prompt_tokens - 1
        if self.sampling_params.prompt_logprobs is not None:
            limit = min(limit, self.sampling_params.prompt_logprobs_start - 1)
        return max(limit, 0)
