"""What answers are made of. A task's own model narrows `TaskResult.output` and may add `scores`."""

from typing import Any

from pydantic import BaseModel, Field


class TaskUsage(BaseModel):
    prompt_tokens: int = Field(description="Tokens read; for scores, of all candidates together.")
    completion_tokens: int = Field(description="Tokens generated.")
    total_tokens: int
    cached_tokens: int = Field(description="Tokens read whose computation was reused.")


class Score(BaseModel):
    label: str
    probability: float = Field(description="Among the candidates, after calibration. They sum to 1.")
    logprob: float = Field(description="Natural logarithm of the model's own probability, before calibration.")
    tokens: int = Field(description="How many tokens were scored.")


class TextScore(BaseModel):
    logprob: float = Field(description="Natural logarithm of the text's probability after an end-of-text token.")
    perplexity: float = Field(description="exp(-logprob / tokens): per GPT-2 token, not per word.")
    tokens: int


class PromptPart(BaseModel):
    field: str | None = Field(description="The input the text came from; null for the template's own text.")
    text: str
    tokens: int = Field(description="Tokens that end in this part.")


class Truncation(BaseModel):
    field: str
    tokens: int = Field(description="How many tokens shorter the prompt became.")


class Explanation(BaseModel):
    prompt: str
    parts: list[PromptPart]
    prompt_tokens: int
    cached_tokens: int = Field(description="How many of them were in the cache.")
    truncated: Truncation | None
    seed: int | None = Field(default=None, description="Send it again for the same text.")
    decoding: dict[str, Any] | None = Field(
        default=None, description="The sampling settings; those not named change nothing."
    )
    finish_reason: str | None = Field(default=None, description="`stop` or `length`.")
    stop_reason: str | int | None = Field(default=None, description="The stop string or token id that ended the text.")
    completion: str | None = Field(default=None, description="All that was generated; `output` is what was kept of it.")


class TaskResult(BaseModel):
    """What one set of inputs gets."""

    output: Any
    usage: TaskUsage
    explain: Explanation | None = None

    def as_body(self) -> dict[str, Any]:
        """As JSON values: the answer first, what it took and how it came last."""
        body = self.model_dump(mode="json", exclude_unset=True)
        last = {name: body.pop(name) for name in ("usage", "explain") if name in body}
        return body | last


class ErrorDetail(BaseModel):
    code: str
    message: str
    field: str | None = None


class ErrorResponse(BaseModel):
    """What every error looks like, also that of one item in a batch."""

    error: ErrorDetail
