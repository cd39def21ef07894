"""`prompts/chat/default.yaml`: how a conversation becomes the text that the model continues."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from zeroshot.tasks.checks import read
from zeroshot.tasks.yaml_source import YamlSource

_CONTENT = "{content}"

Role = Literal["system", "user", "assistant"]


def _check_place(text: str) -> str:
    if text.count(_CONTENT) != 1:
        raise ValueError(f"{_CONTENT} must stand here once")
    return text


def _check_end(text: str) -> str:
    if text.endswith(" "):
        raise ValueError("must not end with a space: GPT-2's tokens begin with theirs")
    return text


Line = Annotated[str, AfterValidator(_check_place)]


class ChatTemplate(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    system: Line
    user: Line
    assistant: Line
    generation: Annotated[str, AfterValidator(_check_end)]
    """What comes after the last message."""
    stop: list[Annotated[str, Field(min_length=1, max_length=256)]] = Field(default=[], max_length=16)

    @classmethod
    def from_file(cls, path: Path) -> "ChatTemplate":
        """Raises PromptFileError: file, line, mistake."""
        source = YamlSource.parse(f"{path.parent.name}/{path.name}", read(path))
        try:
            return cls.model_validate(source.value)
        except ValidationError as error:
            first = error.errors()[0]
            raise source.mistake(first["loc"], first["msg"].removeprefix("Value error, ")) from None

    def render(self, messages: Sequence[tuple[Role, str]]) -> str:
        """A message is put in as plain text: nothing in it is read again."""
        lines = [getattr(self, role).replace(_CONTENT, content, 1) for role, content in messages]
        return "".join([*lines, self.generation])
