"""What may stand in a file of prompts/. `checks.py` makes a `PromptFile` of one; then it never changes."""

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from zeroshot.tasks.inputs import Input, Name, NonEmpty, NonEmptyTuple, Strict, StringInput
from zeroshot.tasks.template import Template
from zeroshot.types import Keep

Calibration = Literal["none", "contextual", "pmi_dc"]
Scoring = Literal["partial", "full"]

OPTION_FIELD = "option"
"""`{option}` in the template of a choice task: the place where each option is tried."""

RESERVED_NAMES = frozenset(
    {
        *("explain", "timeout", "truncate", "style", "stream", "inputs"),
        *("max_tokens", "temperature", "seed"),
        *("calibration", "length_norm", "scoring", OPTION_FIELD),
    }
)
"""Fields of a request that are not inputs of its task."""


class Decoding(Strict):
    """How text is generated: names and meaning of `SamplingParams`, greedy unless told otherwise."""

    max_tokens: int = Field(default=64, ge=1, le=2**31 - 1)
    temperature: float = Field(default=0.0, ge=0, le=100)
    top_k: int = Field(default=0, ge=0, le=2**31 - 1)
    top_p: float = Field(default=1.0, gt=0, le=1)
    min_p: float = Field(default=0.0, ge=0, le=1)
    typical_p: float = Field(default=1.0, gt=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0, le=100)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    stop: Annotated[NonEmptyTuple, Field(max_length=16)] = ()
    regex: NonEmpty | None = None
    """The whole text matches it."""
    num_beams: int = Field(default=1, ge=1, le=64)
    """Above 1: beam search, which draws nothing."""
    length_penalty: float = Field(default=1.0, ge=-10, le=10)
    early_stopping: bool | Literal["never"] = False


class TextOutput(Strict):
    kind: Literal["text"]
    keep: Keep = "all"
    strip: bool = True
    """Remove white space around the text. Off where the text continues the input, letter by letter."""
    example: str | None = None


class JSONOutput(Strict):
    kind: Literal["json"]
    schema_: dict[str, Any] = Field(alias="schema")
    """The text is JSON that fits this schema; the output is its value."""
    example: Any = None


class LabelOutput(Strict):
    kind: Literal["label"]
    labels: NonEmptyTuple | Name
    """The labels, or the name of the list input that brings them."""
    calibration: Calibration = "none"
    length_norm: bool = False
    premise: NonEmpty | None = None
    """The domain premise of pmi_dc. Default: the template's text after its last field."""
    example: str | None = None


class ChoiceOutput(Strict):
    kind: Literal["choice"]
    options: Name
    """The name of the list input that brings the options."""
    scoring: Scoring | None = None
    """With `{option}` in the template: score the text after the option, or the whole text."""
    calibration: Calibration = "none"
    length_norm: bool = False
    premise: NonEmpty | None = None
    example: str | None = None


class ScoreOutput(Strict):
    kind: Literal["score"]


Output = Annotated[TextOutput | JSONOutput | LabelOutput | ChoiceOutput | ScoreOutput, Field(discriminator="kind")]


class Wording(Strict):
    """One way to ask: few-shot examples, which are plain text, each on its own line before the template."""

    description: str = ""
    examples: NonEmptyTuple = ()
    template: NonEmpty

    @cached_property
    def compiled(self) -> Template:
        return Template.parse(self.template, before="".join(f"{example}\n" for example in self.examples))


class PromptFile(Strict):
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    summary: NonEmpty
    description: str = ""
    paper: str = ""
    """Where the wording comes from."""
    inputs: Annotated[dict[Name, Input], Field(min_length=1)]
    examples: NonEmptyTuple = ()
    template: NonEmpty
    style: Name | None = None
    """The name of the wording above, where there are others."""
    styles: dict[Name, Wording] = Field(default_factory=dict)
    """Other wordings of the same task; a request picks one by its name."""
    decoding: Decoding = Decoding()
    output: Output

    @cached_property
    def wordings(self) -> dict[str, Wording]:
        """All wordings by style, the default first."""
        return {self.style or "default": Wording(examples=self.examples, template=self.template), **self.styles}

    @property
    def options_input(self) -> str | None:
        """The list input that brings labels or options."""
        match self.output:
            case LabelOutput(labels=str(name)) | ChoiceOutput(options=name):
                return name
        return None

    @property
    def scores_inside(self) -> bool:
        """True if the options stand inside the template and not after it."""
        return isinstance(self.output, ChoiceOutput) and self.output.scoring is not None

    @property
    def content_inputs(self) -> tuple[str, ...]:
        """Required strings: what contextual calibration makes content-free. Inputs with a default are settings."""
        return tuple(
            name for name, field in self.inputs.items() if isinstance(field, StringInput) and field.default is None
        )

    @property
    def calibrations(self) -> tuple[Calibration, ...]:
        """What a request may ask for: what this task has the means for."""
        if not isinstance(self.output, LabelOutput | ChoiceOutput) or self.scores_inside:
            return ("none",)
        templates = [wording.compiled for wording in self.wordings.values()]
        result: list[Calibration] = ["none"]
        if all(set(template.fields) & set(self.content_inputs) for template in templates):
            result.append("contextual")
        if self.output.premise or all(template.text_after_last_field.strip() for template in templates):
            result.append("pmi_dc")
        return tuple(result)
