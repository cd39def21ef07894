"""The plain values that cross rooms and the process boundary. No tensors, no pydantic.

`msgspec.Struct`s rather than dataclasses: the same thing to read, and the wire format of `engine/messages.py`.
"""

from typing import Literal

import msgspec

FinishReason = Literal["stop", "length", "abort", "error"]
Keep = Literal["all", "first_word", "first_line", "first_sentence", "three_sentences"]

MAX_SEED = 2**63 - 1
DRAWN_SEEDS = 2**53
"""Where a request gives no seed, one below this is drawn: whoever takes JSON's numbers for doubles (JavaScript, jq) can
send it again as it is."""
MAX_LOGPROBS = 20
MAX_LOGIT_BIAS = 300


class Grammar(msgspec.Struct, frozen=True, kw_only=True):
    """What the whole text of a choice must be. Made by `text/grammar.py`."""

    kind: Literal["regex", "json_schema"]
    source: str
    """The regular expression, or the schema as JSON."""
    field: str = ""
    """The request's field that it came from: errors name it."""


class BeamParams(msgspec.Struct, frozen=True, kw_only=True):
    """Beam search instead of sampling. Names and meaning are those of Hugging Face's `generate`."""

    num_beams: int
    length_penalty: float = 1.0
    """A finished text's score is its log-probability divided by its number of tokens to the power of this."""
    early_stopping: bool | Literal["never"] = False
    """True: stop with `num_beams` finished texts. False: once a better one is unlikely; "never": once none can be."""


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to choose the next token. OpenAI's names; the defaults change nothing about the model's distribution."""

    max_tokens: int = 16
    min_tokens: int = 0
    """End of text and stop tokens can't be chosen before this many tokens."""
    temperature: float = 1.0
    """0 is greedy."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    """Of what those leave, keep the tokens whose surprise is nearest to the expected one (Meister et al. 2023)."""
    repetition_penalty: float = 1.0
    """Of tokens in the prompt or the text so far (Keskar et al. 2019)."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    keep: Keep = "all"
    """What the caller will keep of the text, which ends once that can't change any more. It is the caller's to cut."""
    ignore_eos: bool = False
    logprobs: int | None = None
    """Also return the log-probability of each generated token and of this many most likely ones."""
    prompt_logprobs: int | None = None
    """The same for the prompt's tokens from position `prompt_logprobs_start` on."""
    prompt_logprobs_start: int = 1
    """The first prompt position to score. Position 0 has no log-probability: nothing precedes it."""
    grammar: Grammar | None = None
    beams: BeamParams | None = None

    @property
    def is_typical(self) -> bool:
        """Whether tokens are drawn by typical decoding."""
        return self.typical_p < 1.0 and self.temperature > 0.0

    @property
    def has_penalties(self) -> bool:
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt, `n` continuations ("choices")."""

    request_id: str
    prompt_token_ids: list[int]
    sampling_params: SamplingParams
    n: int = 1
    cache_salt: bytes = b""
    """Only requests with the same salt share KV blocks, except those of pinned prompts. The client sets it."""
    pin_prompt: bool = False
    """Keep the prompt's blocks in the prefix cache as long as anything else can be evicted instead."""


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Raw log-softmax of the model's logits, in nats: before temperature, penalties and bias. -inf is -9999.0."""

    token_id: int
    logprob: float
    rank: int
    """1 for the most likely token of the vocabulary."""
    top: list[tuple[int, float]]
    """The most likely tokens with their log-probabilities, best first."""


class TokenOutput(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a step or several gave one choice: tokens, perhaps some prompt scores, perhaps the end."""

    request_id: str
    choice_index: int = 0
    token_ids: list[int] = []
    logprobs: list[TokenLogprob] = []
    prompt_logprobs: list[TokenLogprob] = []
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None
    """The token that ended the choice: end of text, or one of `stop_token_ids`."""
    num_cached_tokens: int = 0
    """Prompt tokens taken from the prefix cache. Set on a choice's first output."""
    scheduled_at: float = 0.0
    """When the first step with this choice began, by the engine's `time.monotonic()`. Set on its first output."""
    error_code: str | None = None
    error_message: str = ""
    error_field: str | None = None
    beam_score: float | None = None
    """With beam search: the score of this choice, which was found as a whole."""


def split(output: TokenOutput) -> list[TokenOutput]:
    """One output a token, which joined say what `output` does."""
    if len(output.token_ids) < 2:
        return [output]
    singles = [
        TokenOutput(
            request_id=output.request_id,
            choice_index=output.choice_index,
            token_ids=[token_id],
            logprobs=output.logprobs[i : i + 1],
            beam_score=output.beam_score,
        )
        for i, token_id in enumerate(output.token_ids)
    ]
    first, last = singles[0], singles[-1]
    first.prompt_logprobs = output.prompt_logprobs
    first.num_cached_tokens, first.scheduled_at = output.num_cached_tokens, output.scheduled_at
    last.finish_reason, last.stop_token_id = output.finish_reason, output.stop_token_id
    last.error_code, last.error_message, last.error_field = output.error_code, output.error_message, output.error_field
    return singles


def join(output: TokenOutput, later: TokenOutput) -> None:
    """Make `output` say what both say: `later` is the next one of the same choice."""
    output.token_ids += later.token_ids
    output.logprobs += later.logprobs
    output.prompt_logprobs += later.prompt_logprobs
    output.finish_reason, output.stop_token_id = later.finish_reason, later.stop_token_id
    output.num_cached_tokens = output.num_cached_tokens or later.num_cached_tokens
    output.scheduled_at = output.scheduled_at or later.scheduled_at
    output.beam_score = later.beam_score
    output.error_code, output.error_message = later.error_code, later.error_message
    output.error_field = later.error_field


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of the engine between two steps."""

    num_running: int = 0
    num_waiting: int = 0
    num_kv_blocks: int = 0
    num_free_kv_blocks: int = 0
    """Cached blocks that nobody uses count as free."""
    prompt_tokens_total: int = 0
    cached_tokens_total: int = 0
    generation_tokens_total: int = 0
    steps_total: int = 0
    guessed_tokens_total: int = 0
    """Run because they might come next; `accepted_tokens_total` of them did."""
    accepted_tokens_total: int = 0
    kernels: dict[str, str] = {}
    """Op -> "triton", or "reference: " and why its kernel does not run. Empty on a CPU."""
