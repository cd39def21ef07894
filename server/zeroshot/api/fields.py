"""Strict field types for request bodies: what is not exactly right is refused, with the field's name."""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from zeroshot.tasks.schema import Timeout, refuse_many_fields
from zeroshot.types import MAX_LOGIT_BIAS, MAX_LOGPROBS, MAX_SEED

MAX_CHOICES = 128
MAX_STOPS = 16
_MAX_IGNORED_NAMES = 20


class StrictBody(BaseModel):
    """`true` is no number, "0.5" is no number, NaN is no number, and unknown fields are errors, not wishes."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    _few_fields = model_validator(mode="before")(refuse_many_fields)


def _without_nulls(data: Any) -> Any:
    return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


class NullsAreDefaults(BaseModel):
    """For the bodies of clients that send every field they know, with null for what was not given."""

    _drop_nulls = model_validator(mode="before")(_without_nulls)


MAX_PROMPT_TOKENS = 2**18
"""Token ids in all prompts of a request: as many as 256 full contexts of GPT-2."""
_MAX_ROWS = 2**12
"""Prompts that are looked at; far fewer are taken."""


def naming_ignored(names: Iterable[str]) -> dict[str, str]:
    """The response header that names unknown fields of a body; no header if there are none."""
    unknown = list(names)
    shown = [name[:64] for name in unknown if name.isascii() and name.isidentifier()]
    return {"X-Ignored-Fields": ", ".join(shown[:_MAX_IGNORED_NAMES]) or "unprintable"} if unknown else {}


def check_encodable(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("the text has a lone surrogate (\\ud800 to \\udfff), which is not a character") from None
    return text


def check_num_items(items: list[Any]) -> None:
    """Raises ValueError for more than are read, before each is looked at: that takes a second for a body's 4 MB."""
    num_items = len(items)
    if num_items <= MAX_PROMPT_TOKENS:
        num_items = max(num_items, sum(len(item) for item in items if isinstance(item, list)))
    if num_items > MAX_PROMPT_TOKENS:
        raise ValueError(f"{num_items} token ids or texts are too many: at most {MAX_PROMPT_TOKENS} are read")
    if len(items) > _MAX_ROWS and isinstance(items[0], str | list):
        raise ValueError(f"{len(items)} prompts are too many: at most {_MAX_ROWS} are read")


def is_token_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int and item >= 0 for item in value)


def _check_prompt_type(value: Any) -> Any:
    """One message instead of one for each member of the union."""
    items = value if isinstance(value, list) else [value]
    check_num_items(items)
    is_texts = bool(items) and all(isinstance(item, str) for item in items)
    is_rows = isinstance(value, list) and bool(value) and all(is_token_ids(item) for item in value)
    if not (is_texts or is_rows or is_token_ids(value)):
        raise ValueError(
            "expected a text, a list of texts, a list of token ids (whole numbers from 0), or a list of such lists; "
            "none of them empty"
        )
    if is_texts:
        for text in items:
            check_encodable(text)
    return value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _logit_bias_keys(value: Any) -> Any:
    """JSON object keys are strings; OpenAI's `logit_bias` means token ids by them."""
    if not isinstance(value, dict):
        return value
    if len(value) > MAX_LOGIT_BIAS:  # before each is looked at
        raise ValueError(f"{len(value)} entries are too many: at most {MAX_LOGIT_BIAS} are read")
    for key in value:
        if not (isinstance(key, int) or (isinstance(key, str) and key.isascii() and key.isdigit())):
            raise ValueError(f"keys are token ids, not {str(key)[:20]!r}")
    return {int(key) if len(str(key)) < 20 else MAX_SEED: bias for key, bias in value.items()}


_ENCODABLE = AfterValidator(check_encodable)
Text = Annotated[str, _ENCODABLE]
# Bounds before the check: of what a function has returned, pydantic's errors count items and not characters.
NonEmptyText = Annotated[str, Field(min_length=1), _ENCODABLE]
TokenId = Annotated[int, Field(ge=0)]
Temperature = Annotated[float, Field(ge=0, le=100, description="0 is greedy: always the most likely token.")]
TopK = Annotated[int, Field(ge=0, le=2**31 - 1, description="Draw from the k most likely tokens. 0 is off.")]
TopP = Annotated[
    float, Field(gt=0, le=1, description="Draw from the fewest tokens whose probabilities reach this. 1 is off.")
]
MinP = Annotated[
    float, Field(ge=0, le=1, description="Draw from tokens at least this share as likely as the best. 0 is off.")
]
TypicalP = Annotated[
    float,
    Field(
        gt=0,
        le=1,
        description="Draw from the tokens nearest to the expected surprise whose probabilities reach this. 1 is off.",
    ),
]
RepetitionPenalty = Annotated[float, Field(gt=0, le=100, description="Above 1 makes tokens seen before less likely.")]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED, description="The same request with the same seed gives the same text.")]
Stop = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=256), _ENCODABLE]],
    Field(max_length=MAX_STOPS, description="Strings that end the text; they are not part of it."),
    BeforeValidator(_as_list),
]
LogitBias = Annotated[
    dict[TokenId, Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=MAX_LOGIT_BIAS, description="Added to the logits of these token ids."),
    BeforeValidator(_logit_bias_keys),
]
Logprobs = Annotated[
    int, Field(ge=0, le=MAX_LOGPROBS, description="Also return log-probabilities, with this many alternatives.")
]
# Without fail_fast each token id would first become an error, as no text: 0.1 s for as many as are read.
Prompt = Annotated[
    str
    | Annotated[list[str], Field(fail_fast=True)]
    | Annotated[list[int], Field(fail_fast=True)]
    | Annotated[list[list[int]], Field(fail_fast=True)],
    BeforeValidator(_check_prompt_type),
    Field(description="A text, a list of texts, a list of token ids, or a list of lists of token ids."),
]


class PromptBody(StrictBody):
    """What is to be continued."""

    prompt: Prompt = Field(examples=["It was a dark night, and"])


class SamplingBody(StrictBody):
    """How to choose tokens: the settings that every surface for generating text has, under the same names."""

    min_tokens: int = Field(default=0, ge=0, le=2**31 - 1, description="No end of text or stop before this many.")
    temperature: Temperature = 1.0
    top_k: TopK = 0
    top_p: TopP = 1.0
    min_p: MinP = 0.0
    typical_p: TypicalP = 1.0
    repetition_penalty: RepetitionPenalty = 1.0
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    logit_bias: LogitBias = Field(default={})
    stop: Stop = Field(default=[])
    stop_token_ids: list[TokenId] = Field(default=[], max_length=MAX_STOPS)
    ignore_eos: bool = Field(default=False, description="Go on after the end-of-text token.")
    timeout: Timeout = None
