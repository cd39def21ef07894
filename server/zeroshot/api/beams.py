"""`num_beams` and what belongs to it, under Hugging Face's names. Fields that make no sense with it are refused."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from zeroshot.api.fields import StrictBody
from zeroshot.errors import InvalidRequest
from zeroshot.types import BeamParams

MAX_BEAMS = 64


def _true_false_or_never(value: Any) -> Any:
    """One message instead of one for each member of the union; 1 is not true."""
    if not isinstance(value, bool) and value != "never":
        raise ValueError('expected true, false or "never"')
    return value


LengthPenalty = Annotated[float, Field(ge=-10, le=10, description="Above 0 favours long texts, below 0 short ones.")]
EarlyStopping = Annotated[
    bool | Literal["never"],
    BeforeValidator(_true_false_or_never),
    Field(description="true: stop with num_beams finished texts; never: when no better one is possible."),
]

_NOT_TOGETHER: dict[str, tuple[Any, ...]] = {
    "temperature": (0, 0.0),
    "top_k": (0,),
    "top_p": (1.0,),
    "min_p": (0.0,),
    "typical_p": (1.0,),
    "seed": (None,),
    "stop": ([],),
    "logprobs": (None, False),
    "best_of": (None,),
    "echo": (False,),
    "stream": (False,),
    "structured_outputs": (None,),
    "response_format": (None,),
}
"""Fields that beam search has no use for, with the values that ask for nothing."""


def beam_params(
    body: StrictBody, *, num_beams: int, length_penalty: float | None, early_stopping: bool | Literal["never"] | None
) -> BeamParams | None:
    """None without a search. Raises InvalidRequest for what was given and can't be combined."""
    if num_beams == 1:
        for name, value in (("length_penalty", length_penalty), ("early_stopping", early_stopping)):
            if value is not None:
                raise InvalidRequest(f"{name} needs beam search.", field=name)
        return None
    for name in sorted(body.model_fields_set & _NOT_TOGETHER.keys()):
        if getattr(body, name) not in _NOT_TOGETHER[name]:
            raise InvalidRequest(f"{name} can't be combined with beam search.", field=name)
    n: int = getattr(body, "n", 1)
    if n > num_beams:
        raise InvalidRequest(f"n is {n}: at most num_beams, {num_beams}, can be returned.", field="n")
    return BeamParams(
        num_beams=num_beams,
        length_penalty=1.0 if length_penalty is None else length_penalty,
        early_stopping=False if early_stopping is None else early_stopping,
    )
