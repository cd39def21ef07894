"""The kinds of input a prompt file can declare: what each accepts, and how its value reads in a prompt."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

_INT64 = 2**63 - 1


class Strict(BaseModel):
    """Exactly what is written: no coercion, no unknown keys, no NaN; never changed after it was checked."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
NonEmpty = Annotated[str, StringConstraints(min_length=1)]
# YAML has lists only: a tuple of strict items has to be made from one.
NonEmptyTuple = Annotated[tuple[NonEmpty, ...], Field(strict=False)]


class StringInput(Strict):
    type: Literal["string"]
    description: str = ""
    default: str | None = None
    example: str | None = None
    min_chars: int = Field(default=1, ge=0)
    max_chars: int = Field(default=8000, ge=1, le=10**6)
    truncate: Literal["left", "right"] | None = None
    """The side to cut when a request says `truncate: true`. Makes this the input that is cut."""

    @property
    def value_type(self) -> Any:
        return Annotated[str, Field(min_length=self.min_chars, max_length=self.max_chars)]

    def as_text(self, value: Any) -> str:
        return str(value)


class IntegerInput(Strict):
    type: Literal["integer"]
    description: str = ""
    default: int | None = None
    example: int | None = None
    min: int = Field(default=-_INT64, ge=-_INT64)
    max: int = Field(default=_INT64, le=_INT64)

    @property
    def value_type(self) -> Any:
        return Annotated[int, Field(ge=self.min, le=self.max)]

    def as_text(self, value: Any) -> str:
        return str(value)


class NumberInput(Strict):
    type: Literal["number"]
    description: str = ""
    default: float | None = None
    example: float | None = None
    min: float | None = None
    max: float | None = None

    @property
    def value_type(self) -> Any:
        return Annotated[float, Field(ge=self.min, le=self.max)]

    def as_text(self, value: Any) -> str:
        """As digits, never with an exponent. 2.0 reads "2": JSON doesn't tell the two apart."""
        return f"{Decimal(repr(value)):f}".removesuffix(".0")


class BooleanInput(Strict):
    type: Literal["boolean"]
    description: str = ""
    default: bool | None = None
    example: bool | None = None

    @property
    def value_type(self) -> Any:
        return bool

    def as_text(self, value: Any) -> str:
        return "yes" if value else "no"


class EnumInput(Strict):
    type: Literal["enum"]
    description: str = ""
    default: str | None = None
    example: str | None = None
    enum: NonEmptyTuple = Field(min_length=1)

    @property
    def value_type(self) -> Any:
        return Literal[self.enum]

    def as_text(self, value: Any) -> str:
        return str(value)


class ListInput(Strict):
    """A list of strings, joined by `separator` where the template names it."""

    type: Literal["list"]
    description: str = ""
    default: list[str] | None = None
    example: list[str] | None = None
    min_items: int = Field(default=1, ge=0)
    max_items: int = Field(default=32, ge=1, le=256)
    max_chars: int = Field(default=1000, ge=1, le=10**6)
    separator: str = ", "

    @property
    def value_type(self) -> Any:
        item = Annotated[str, Field(min_length=1, max_length=self.max_chars)]
        return Annotated[list[item], Field(min_length=self.min_items, max_length=self.max_items)]

    def as_text(self, value: Any) -> str:
        return self.separator.join(value)


Input = Annotated[
    StringInput | IntegerInput | NumberInput | BooleanInput | EnumInput | ListInput, Field(discriminator="type")
]
