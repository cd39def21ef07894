"""What a request may ask of the form of its text: vLLM's `structured_outputs`, OpenAI's `response_format`."""

import json
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from zeroshot.api import fields
from zeroshot.api.generation import Generation
from zeroshot.api.guided_choice import ChoiceGeneration
from zeroshot.api.prompts import MAX_SEQS_PER_REQUEST
from zeroshot.errors import InvalidRequest
from zeroshot.model_client import ModelClient
from zeroshot.text.grammar import MAX_SCHEMA_BYTES, json_grammar, regex_grammar, schema_too_large
from zeroshot.types import GenerateRequest, Grammar

_GRAMMAR_MAX_TOKENS = 256

_MAX_SCHEMA_TEXT = 16 * MAX_SCHEMA_BYTES
"""With the white space that a schema sent as a text may have."""

_KINDS = ("choice", "regex", "json", "json_object")
_ANY_OBJECT = {"type": "object"}


def _exactly_one_kind(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    given = {name: value for name, value in data.items() if value is not None and value is not False}
    unknown = [name for name in given if name not in _KINDS]
    if unknown:
        raise ValueError(f"{unknown[0][:40]!r} is not supported; there are {', '.join(_KINDS)}")
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(_KINDS)}")
    return given


class StructuredOutputs(fields.StrictBody):
    """vLLM's field: exactly one of its kinds."""

    _one_kind = model_validator(mode="before")(_exactly_one_kind)

    choice: list[fields.NonEmptyText] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_SEQS_PER_REQUEST,
        description="The text is one of these, written as it follows the prompt: most begin with a space.",
    )
    regex: fields.NonEmptyText | None = Field(
        default=None, description="The whole text matches it: the syntax of Rust's regex crate."
    )
    json_schema: dict[str, Any] | fields.Text | None = Field(
        default=None, alias="json", description="The text is JSON that fits this schema."
    )
    json_object: bool = Field(default=False, description="The text is a JSON object.")

    def grammar(self) -> Grammar | None:
        """Raises InvalidRequest for one that is too large. None if the text is one of `choice`."""
        if self.regex is not None:
            return regex_grammar(self.regex, field="structured_outputs.regex")
        if self.json_schema is not None:
            field = "structured_outputs.json"
            return json_grammar(parsed_schema(self.json_schema, field=field), field=field)
        return json_grammar(_ANY_OBJECT, field="structured_outputs.json_object") if self.json_object else None


class JSONSchemaFormat(fields.StrictBody):
    """`name`, `description` and `strict` change nothing: a schema is always followed to the letter."""

    model_config = ConfigDict(extra="ignore")

    json_schema: dict[str, Any] = Field(alias="schema")


class ResponseFormat(fields.NullsAreDefaults, fields.StrictBody):
    """OpenAI's field."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JSONSchemaFormat | None = None

    def grammar(self) -> Grammar | None:
        """Raises InvalidRequest for a schema that is missing or too large."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return json_grammar(_ANY_OBJECT, field="response_format")
        if self.json_schema is None:
            raise InvalidRequest("response_format: type json_schema needs json_schema.", field="response_format")
        return json_grammar(self.json_schema.json_schema, field="response_format")


def generation_of(
    client: ModelClient, requests: list[GenerateRequest], choices: list[str] | None, *, prompt_field: str = "prompt"
) -> Generation:
    """Held to `choices` where there are some. Raises InvalidRequest for what can't be combined with them."""
    if choices is None:
        return Generation(client, requests)
    return ChoiceGeneration(client, requests, choices, prompt_field=prompt_field)


def default_max_tokens(
    usual: int, client: ModelClient, *, choices: list[str] | None, grammar: Grammar | None = None
) -> int:
    """Where the request doesn't say: with a grammar more than usual, as half a JSON document is of no use."""
    if choices is not None:
        return client.max_model_len
    return usual if grammar is None else _GRAMMAR_MAX_TOKENS


def parsed_schema(schema: Any, *, field: str) -> Any:
    """A schema may come as a text. Raises InvalidRequest for a text that is too long, or no JSON."""
    if not isinstance(schema, str):
        return schema
    if len(schema) > _MAX_SCHEMA_TEXT:
        raise schema_too_large(field)
    try:
        return json.loads(schema)
    except (ValueError, RecursionError):
        raise InvalidRequest(f"{field}: this text is not JSON.", field=field) from None
