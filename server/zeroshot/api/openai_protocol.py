"""What OpenAI's two text surfaces have in common: request fields, what is refused, usage, response frame.

Explicit nulls mean "not given". A field that asks for something this server can't do is a 400; one that asks for
nothing (`_WITHOUT_EFFECT`) is accepted; any other unknown field is named in the response header `X-Ignored-Fields`.
"""

import secrets
import time
import uuid
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

import zeroshot
from zeroshot.api import fields
from zeroshot.api.beams import MAX_BEAMS, EarlyStopping, LengthPenalty, beam_params
from zeroshot.api.generation import Generation
from zeroshot.api.models import check_model
from zeroshot.api.structured_outputs import ResponseFormat, StructuredOutputs
from zeroshot.errors import InvalidRequest
from zeroshot.model_client import ModelClient
from zeroshot.types import DRAWN_SEEDS, MAX_SEED, BeamParams, Grammar

_WITHOUT_EFFECT = frozenset(
    {
        "add_special_tokens",  # GPT-2's tokenizer adds none
        "cache_salt",
        "metadata",
        "parallel_tool_calls",
        "priority",
        "prompt_cache_key",
        "prompt_cache_retention",
        "request_id",
        "safety_identifier",
        "service_tier",
        "spaces_between_special_tokens",
        "store",
        "stream_interval",
        "user",
    }
)

_REFUSED: dict[str, tuple[Any, ...]] = {
    "allowed_token_ids": (),
    "add_generation_prompt": (True,),
    "audio": (),
    "bad_words": ([],),
    "chat_template": (),
    "continue_final_message": (False,),
    "function_call": ("none",),
    "functions": ([],),
    "guided_choice": (),
    "guided_decoding_backend": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "logits_processors": ([],),
    "logprob_token_ids": ([],),
    "modalities": (["text"],),
    "prediction": (),
    "prompt_embeds": (),
    "prompt_logprobs": (),
    "reasoning_effort": ("none",),
    "repetition_detection": (),
    "skip_special_tokens": (True,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "web_search_options": (),
}
"""Fields of OpenAI or vLLM for what this server can't do, with the values that don't ask for it."""


def _off_is_zero(value: Any) -> Any:
    return 0 if type(value) is int and value == -1 else value


TopK = Annotated[fields.TopK, BeforeValidator(_off_is_zero)]
Seed = Annotated[int, Field(ge=-MAX_SEED - 1, le=MAX_SEED, description="The same seed, the same text.")]


class StreamOptions(fields.NullsAreDefaults, fields.StrictBody):
    """`include_usage` adds a last chunk with the token counts, `continuous_usage_stats` puts them into every chunk."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False
    continuous_usage_stats: bool = False


class OpenAIBody(fields.NullsAreDefaults, fields.SamplingBody):
    model_config = ConfigDict(extra="allow")

    model: fields.Text | None = Field(default=None, description="The name in GET /v1/models. Default: the model here.")
    top_k: TopK = 0
    seed: Seed | None = None
    n: int = Field(default=1, ge=1, le=fields.MAX_CHOICES)
    stream: bool = Field(default=False, description="Answer with server-sent events as the text comes.")
    stream_options: StreamOptions | None = None
    structured_outputs: StructuredOutputs | None = None
    response_format: ResponseFormat | None = None

    use_beam_search: bool = Field(default=False, description="Find the n best texts with n beams; nothing is drawn.")
    length_penalty: LengthPenalty | None = None
    early_stopping: EarlyStopping | None = None

    def beams(self) -> BeamParams | None:
        """Raises InvalidRequest for what can't be combined with beam search."""
        asks = self.use_beam_search
        if asks and self.n == 1:
            raise InvalidRequest("With use_beam_search, n is the number of beams: at least 2.", field="n")
        if asks and self.n > MAX_BEAMS:
            raise InvalidRequest(f"n is {self.n}: there can be {MAX_BEAMS} beams at most.", field="n")
        if asks and getattr(self, "max_tokens", None) == 0:
            raise InvalidRequest("With use_beam_search, max_tokens is at least 1.", field="max_tokens")
        penalty = None if not asks and self.length_penalty == 1.0 else self.length_penalty
        stopping = None if not asks and self.early_stopping is False else self.early_stopping
        return beam_params(self, num_beams=self.n if asks else 1, length_penalty=penalty, early_stopping=stopping)

    def engine_seed(self) -> int:
        """Not negative. Drawn anew at each call if the request has none."""
        return secrets.randbelow(DRAWN_SEEDS) if self.seed is None else self.seed % (MAX_SEED + 1)

    def check(self, client: ModelClient) -> None:
        """Raises UnknownModel, and InvalidRequest for a field that asks for what can't be done here."""
        check_model(self.model, client)
        for name, value in (self.model_extra or {}).items():
            if name in _REFUSED and value not in _REFUSED[name]:
                raise InvalidRequest(f"{name} is not supported by this server.", field=name)
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("stream_options is only allowed with stream: true.", field="stream_options")

    @property
    def choices(self) -> list[str] | None:
        """The texts of which one is wanted."""
        return self.structured_outputs.choice if self.structured_outputs else None

    def grammar(self) -> Grammar | None:
        """What the text must be like. Raises InvalidRequest for a grammar that is too large, and for two of them."""
        asked = [field for field in (self.structured_outputs, self.response_format) if field is not None]
        if len(asked) > 1 and self.response_format is not None and self.response_format.type != "text":
            raise InvalidRequest("Give either response_format or structured_outputs.", field="response_format")
        return asked[0].grammar() if asked else None

    def ignored_fields(self) -> dict[str, str]:
        """The response header that names unknown fields; no header if there are none."""
        known = _WITHOUT_EFFECT | _REFUSED.keys()
        return fields.naming_ignored(name for name in self.model_extra or {} if name not in known)


class Frame:
    """What is the same in every chunk of an answer."""

    def __init__(self, kind: str, id_prefix: str, client: ModelClient) -> None:
        self.id = f"{id_prefix}-{uuid.uuid4().hex}"
        self._fields = {
            "id": self.id,
            "object": kind,
            "created": int(time.time()),
            "model": client.model_name,
            "system_fingerprint": f"zeroshot-{zeroshot.__version__}",
        }

    def around(self, choices: list[Any], **more: Any) -> dict[str, Any]:
        return self._fields | {"choices": choices} | more


class UsageInChunks:
    """`usage` as `stream_options` wants it: in a last chunk of its own, in all chunks, or in none."""

    def __init__(self, options: StreamOptions | None, generation: Generation) -> None:
        self.is_wanted = options is not None and options.include_usage
        self._is_continuous = options is not None and options.continuous_usage_stats
        self._generation = generation

    def so_far(self) -> dict[str, Any]:
        """What a chunk with choices in it says of usage."""
        if not self.is_wanted:
            return {}
        return self.total() if self._is_continuous else {"usage": None}

    def total(self) -> dict[str, Any]:
        return {"usage": openai_usage(self._generation.usage())}


def openai_usage(usage: dict[str, int]) -> dict[str, Any]:
    counts = {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    return counts | {"prompt_tokens_details": {"cached_tokens": usage["cached_tokens"]}}
