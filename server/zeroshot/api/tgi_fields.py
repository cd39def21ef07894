"""What Text Generation Inference's clients send."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from zeroshot.api import fields
from zeroshot.api.structured_outputs import parsed_schema
from zeroshot.errors import InvalidRequest
from zeroshot.text.grammar import json_grammar, regex_grammar
from zeroshot.types import Grammar


class TGIGrammar(fields.StrictBody):
    type: Literal["json", "json_schema", "regex"]
    value: dict[str, Any] | fields.Text

    def grammar(self) -> Grammar:
        """Raises InvalidRequest for a value that is too large, or not of the kind that `type` says."""
        if self.type == "regex":
            if not isinstance(self.value, str) or not self.value:
                raise InvalidRequest("`grammar`: a regex is a text that is not empty.", field="grammar")
            return regex_grammar(self.value, field="grammar")
        is_named = self.type == "json_schema" and isinstance(self.value, dict) and "schema" in self.value
        schema = self.value["schema"] if is_named else self.value  # type: ignore[index]
        return json_grammar(parsed_schema(schema, field="grammar"), field="grammar")


class TGIParameters(fields.NullsAreDefaults, fields.StrictBody):
    """TGI's names; nulls are defaults."""

    max_new_tokens: int | None = Field(default=None, ge=1, le=2**31 - 1, description="Default: 100, or what fits.")
    do_sample: bool = Field(default=False, description="Without it, or another sampling setting, decoding is greedy.")
    temperature: fields.Temperature = 1.0
    top_k: fields.TopK = 0
    top_p: fields.TopP = 1.0
    typical_p: fields.TypicalP = 1.0
    repetition_penalty: fields.RepetitionPenalty = 1.0
    frequency_penalty: fields.Penalty = 0.0
    seed: int | None = Field(default=None, ge=0, le=2**64 - 1)
    stop: fields.Stop = Field(default=[])
    truncate: int | None = Field(default=None, ge=1, le=2**31 - 1, description="Keep only the input's last tokens.")
    best_of: int = Field(default=1, ge=1, le=fields.MAX_CHOICES)
    return_full_text: bool = Field(default=False, description="Put the input before the text.")
    details: bool = False
    decoder_input_details: bool = Field(
        default=False, description="Return details, and among them the input's log-probabilities."
    )
    top_n_tokens: fields.Logprobs | None = None
    watermark: bool = False
    grammar: TGIGrammar | None = Field(default=None, description="What the text must be.")
    adapter_id: Any = None

    @property
    def is_sampling(self) -> bool:
        return self.do_sample or self.temperature != 1.0 or self.top_k > 0 or self.top_p < 1.0 or self.typical_p < 1.0

    @property
    def has_details(self) -> bool:
        """Whether the answer has `details`; a stream's last event has them in any case."""
        return self.details or self.decoder_input_details

    def check(self, *, stream: bool) -> None:
        """Raises InvalidRequest for what can't be done, or not together."""
        for name in ("watermark", "adapter_id"):
            if getattr(self, name):
                raise InvalidRequest(f"`{name}` is not supported by this server.", field=name)
        if self.best_of > 1 and not self.is_sampling:
            raise InvalidRequest("you must use sampling when `best_of` is > 1", field="best_of")
        if self.best_of > 1 and stream:
            raise InvalidRequest("`best_of` != 1 is not supported when streaming tokens", field="best_of")
        if self.decoder_input_details and stream:
            raise InvalidRequest(
                "`decoder_input_details` == true is not supported when streaming tokens", field="decoder_input_details"
            )


class TGIBody(fields.NullsAreDefaults, fields.StrictBody):
    """Other fields are ignored as TGI does, and named in the header `X-Ignored-Fields`."""

    model_config = ConfigDict(extra="allow")

    inputs: fields.NonEmptyText = Field(examples=["It was a dark night, and"])
    parameters: TGIParameters = Field(default_factory=TGIParameters)
    stream: bool = False

    def ignored_fields(self) -> dict[str, str]:
        """That header; none for `options`, which Hugging Face's hosted service takes."""
        return fields.naming_ignored(name for name in self.model_extra or {} if name != "options")
