"""Each task's own request and response models, made from its prompt file. Strict: what doesn't fit is refused.

An input `text` becomes the attribute `input_text` with the alias `text`: any name is fine for an input, also one that
pydantic uses itself.
"""

from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, create_model, model_validator
from pydantic_core import PydanticCustomError, PydanticUndefined

from zeroshot.tasks.prompt_file import (
    Calibration,
    ChoiceOutput,
    JSONOutput,
    LabelOutput,
    PromptFile,
    ScoreOutput,
    Scoring,
    TextOutput,
    Wording,
)
from zeroshot.tasks.results import Score, TaskResult, TextScore
from zeroshot.types import MAX_SEED

MAX_BATCH_ITEMS = 256
MAX_FIELDS = 1024
_PREFIX = "input_"
Timeout = Annotated[
    float | None,
    Field(
        gt=0, le=86_400, description="Seconds until the request ends with the error `timeout`; at most the server's."
    ),
]


def refuse_many_fields(data: Any) -> Any:
    """For models of requests: pydantic makes an error of each unknown field, which takes seconds for 4 MB of them."""
    if isinstance(data, dict) and len(data) > MAX_FIELDS:
        raise ValueError(f"an object of {len(data)} fields: at most {MAX_FIELDS} are read")
    return data


def _inputs_first(schema: dict[str, Any]) -> None:
    """Fields of the base class would come first in the schema, and so on the docs page."""
    properties = schema.get("properties", {})
    for name in ("truncate", "explain", "timeout"):
        properties[name] = properties.pop(name)


class TaskRequest(BaseModel):
    """What all requests have; the inputs come on top."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        json_schema_extra=_inputs_first,
    )

    _few_fields = model_validator(mode="before")(refuse_many_fields)

    truncate: bool = Field(default=False, description="Shorten the input if the prompt doesn't fit the context.")
    explain: bool = Field(default=False, description="Also return the prompt, its tokens, and how the answer came.")
    timeout: Timeout = None

    @property
    def values(self) -> dict[str, Any]:
        """The inputs by their names, defaults filled in."""
        return {
            name.removeprefix(_PREFIX): getattr(self, name)
            for name in type(self).model_fields
            if name.startswith(_PREFIX)
        }

    @property
    def given(self) -> frozenset[str]:
        """Names of the inputs that the caller sent."""
        return frozenset(name.removeprefix(_PREFIX) for name in self.model_fields_set if name.startswith(_PREFIX))


def input_type(file: PromptFile, name: str) -> Any:
    """What a value of this input must be."""
    value_type = file.inputs[name].value_type
    return Annotated[value_type, AfterValidator(_are_options)] if name == file.options_input else value_type


def request_model(file: PromptFile) -> type[TaskRequest]:
    """The model that a task's JSON body must fit."""
    fields: dict[str, Any] = {}
    for name, declared in file.inputs.items():
        title = name.replace("_", " ").capitalize()
        field = Field(
            default=PydanticUndefined if declared.default is None else declared.default,
            alias=name,
            title=title,
            description=declared.description or None,
            examples=None if declared.example is None else [declared.example],
        )
        fields[_PREFIX + name] = (input_type(file, name), field)
    fields |= _option_fields(file)
    validators: dict[str, Any] = {"uses_all_inputs": model_validator(mode="after")(_refuse_unused(file))}
    model = create_model(
        f"{camel_case(file.name)}TaskRequest",
        __base__=TaskRequest,
        __module__=__name__,
        __doc__=file.summary,
        __validators__=validators if file.styles else None,
        **fields,
    )
    return cast(type[TaskRequest], model)


def result_model(file: PromptFile) -> type[TaskResult]:
    """What comes back for one set of inputs."""
    fields: dict[str, Any] = {"output": (_output_type(file), Field(description=_OUTPUTS[file.output.kind]))}
    if isinstance(file.output, LabelOutput | ChoiceOutput):
        fields["scores"] = (list[Score], Field(description="All candidates, the best first."))
        fields["calibration"] = (Calibration, Field(description="How the probabilities were calibrated."))
    model = create_model(f"{camel_case(file.name)}TaskResult", __base__=TaskResult, __module__=__name__, **fields)
    return cast(type[TaskResult], model)


def response_model(file: PromptFile, result: type[TaskResult]) -> type[TaskResult]:
    """The whole answer to one request."""
    return create_model(
        f"{camel_case(file.name)}TaskResponse",
        __base__=result,
        __module__=__name__,
        task=(str, Field(description="The task's name.")),
        version=(str, Field(description="Changes with the prompt file.")),
    )


def example_request(file: PromptFile) -> dict[str, Any] | None:
    """A body to try, from the examples in the file; None if a required input has none."""
    used = _used_inputs(file, next(iter(file.wordings.values())))
    body = {name: field.example for name, field in file.inputs.items() if name in used and field.example is not None}
    required = {name for name, field in file.inputs.items() if field.default is None}
    return body if required <= set(body) else None


def is_stream(request: TaskRequest) -> bool:
    """Whether the answer is wanted in pieces. A field of those tasks whose answer can be."""
    return bool(getattr(request, "stream", False))


def can_stream(file: PromptFile) -> bool:
    """Text, but for beam search, which has it only at its end."""
    return isinstance(file.output, TextOutput) and file.decoding.num_beams == 1


def camel_case(name: str) -> str:
    return "".join(part.capitalize() for part in name.replace("-", "_").split("_"))


_OUTPUTS = {
    "text": "The generated text.",
    "json": "What the generated JSON says.",
    "label": "The most probable label.",
    "choice": "The most probable option.",
    "score": "How probable the model finds the text.",
}


def _output_type(file: PromptFile) -> Any:
    if isinstance(file.output, JSONOutput):
        return Annotated[Any, WithJsonSchema(file.output.schema_)]
    if isinstance(file.output, LabelOutput) and isinstance(file.output.labels, tuple):
        return _one_of(*file.output.labels)
    return TextScore if isinstance(file.output, ScoreOutput) else str


def _option_fields(file: PromptFile) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if file.styles:
        described = [f"`{name}`: {wording.description or wording.template}" for name, wording in file.wordings.items()]
        about = "The wording. " + " ".join(described)
        fields["style"] = (_one_of(*file.wordings), Field(default=file.style, description=about))
    output, decoding = file.output, file.decoding
    if isinstance(output, TextOutput | JSONOutput):
        fields["max_tokens"] = (int, Field(default=decoding.max_tokens, ge=1, le=2**31 - 1))
        if decoding.num_beams > 1:
            return fields
        about = "0 is greedy: always the most likely token."
        fields["temperature"] = (float, Field(default=decoding.temperature, ge=0, le=100, description=about))
        about = "The same request with the same seed gives the same text. Default: a random one; see `explain`."
        fields["seed"] = (int | None, Field(default=None, ge=0, le=MAX_SEED, description=about))
    if can_stream(file):
        about = "Answer with server-sent events as the text comes: each has a piece of `output`."
        fields["stream"] = (bool, Field(default=False, description=about))
    if isinstance(output, LabelOutput | ChoiceOutput):
        if len(file.calibrations) > 1:
            about = (
                "`contextual` divides by the probabilities after a content-free input (Zhao et al. 2021), `pmi_dc` by "
                "those after the template's last words alone (Holtzman et al. 2021)."
            )
            allowed = _one_of(*file.calibrations)
            fields["calibration"] = (allowed, Field(default=output.calibration, description=about))
        about = "Divide each log-probability by its number of tokens."
        fields["length_norm"] = (bool, Field(default=output.length_norm, description=about))
    if isinstance(output, ChoiceOutput) and output.scoring is not None:
        about = "Score the text after the option (`partial`) or the whole text (`full`) (Trinh and Le 2018)."
        fields["scoring"] = (Scoring, Field(default=output.scoring, description=about))
    return fields


def _one_of(*names: str) -> Any:
    return Literal[names]


def _are_options(options: list[str]) -> list[str]:
    if len(options) < 2:
        raise ValueError("expected at least two")
    if any(option != option.strip() or not option for option in options):
        raise ValueError("no white space around them: the space before each is put there")
    if len(set(options)) < len(options):
        raise ValueError("one of them stands there twice")
    return options


def _used_inputs(file: PromptFile, wording: Wording) -> set[str | None]:
    return {*wording.compiled.fields, file.options_input}


def _refuse_unused(file: PromptFile) -> Any:
    """An input that the chosen style doesn't use would be ignored: better to say so."""
    used = {style: _used_inputs(file, wording) for style, wording in file.wordings.items()}

    def check(request: TaskRequest) -> TaskRequest:
        style: str = getattr(request, "style")  # noqa: B009  # a field of every task with styles
        unused = sorted(request.given - used[style])
        if unused:
            names = ", ".join(unused)
            raise PydanticCustomError("unused_input", f"style {style!r} doesn't use {names}", {"field": unused[0]})
        return request

    return check
