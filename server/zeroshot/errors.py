"""Every error a caller can meet, with its HTTP status and its stable code.

    ZeroshotError                      500  internal_error
    ├── InvalidRequest                 400  invalid_request      a field's value cannot be used
    │   ├── ContextLengthExceeded      400  context_length_exceeded
    │   ├── TooMuchAtOnce              400  invalid_request      more than the server ever holds for a caller
    │   ├── OutputIncomplete           422  output_incomplete    max_tokens came before the end of a task's JSON
    │   └── ValidationFailed           422  validation_error     the body doesn't fit its schema
    ├── Unauthorized                   401  invalid_api_key      no API key, or a wrong one
    ├── HostNotAllowed                 403  host_not_allowed     another name's page calls a server without keys
    ├── UnknownTask                    404  unknown_task
    ├── UnknownModel                   404  unknown_model
    ├── RequestTimeout                 408  request_timeout      the body came too slowly
    ├── RequestTooLarge                413  request_too_large
    ├── Overloaded                     429  overloaded           the queue is full; says when to retry
    │   └── RateLimited                429  rate_limited         this key asks for more than it may
    ├── ClientDisconnected             499  client_disconnected  nobody reads this one; nginx's status, for the log
    ├── GenerationFailed               500  generation_failed    the engine gave up on this request
    │   └── NanLogits                  500  nan_logits
    ├── EngineUnavailable              503  engine_unavailable   the model is still loading
    │   ├── EngineRestarting           503  engine_restarting    it died or hung; a new one is on its way
    │   └── Draining                   503  draining             the server was told to stop
    ├── DeadlineExceeded               504  timeout              not finished within the request's timeout
    ├── WeightsError                   (start-up only)           a checkpoint we refuse to serve
    ├── SettingsError                  (start-up only)           a setting with a value that can't be
    └── PromptFileError                (start-up and reload)     a prompt file with a mistake in it

Raised in any room; turned into a response in `api/errors.py` only. What HTTP itself forbids (no such path, a head that
is too large) is answered in the same form there, as `HttpError`, and in `http_protocol.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

_MAX_FIELD_CHARS = 128
"""Of a field's name in an error: an unknown one is the caller's, and may be as long as a body."""


class ZeroshotError(Exception):
    """Root of the tree. `field` names the request field at fault, where there is one."""

    status = 500
    code = "internal_error"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    def as_body(self) -> dict[str, Any]:
        """The JSON that says it: `{"error": {"code", "message", "field"}}`."""
        return {"error": {"code": self.code, "message": self.printable_message, "field": self.field}}

    @property
    def printable_message(self) -> str:
        """The message may quote the caller, and a lone surrogate can't be encoded."""
        return self.message.encode("utf-8", "replace").decode("utf-8")


def most_telling(errors: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Which of pydantic's `errors()` to show: the first. But a misspelt name makes two, a missing field and an unknown
    one, and the unknown one is what the caller has typed.
    """
    first = errors[0]
    if first["type"] != "missing":
        return first
    siblings = (error for error in errors if tuple(error["loc"])[:-1] == tuple(first["loc"])[:-1])
    return next((error for error in siblings if error["type"] == "extra_forbidden"), first)


class InvalidRequest(ZeroshotError):
    status = 400
    code = "invalid_request"


class ContextLengthExceeded(InvalidRequest):
    """`max_tokens` is 0 where nothing is generated; what is scored after a prompt counts among its tokens.

    It is None where the caller gave none: the prompt alone leaves no room. `max_tokens_field` is its name there.
    """

    code = "context_length_exceeded"

    def __init__(
        self,
        prompt_tokens: int,
        max_tokens: int | None,
        max_model_len: int,
        *,
        field: str = "prompt",
        hint: str = "",
        max_tokens_field: str = "max_tokens",
    ) -> None:
        noun = "token" if prompt_tokens == 1 else "tokens"
        if max_tokens is None:
            size = f"{prompt_tokens} {noun} and the answer at least one"
            message = f"The prompt has {size}, but the model's context holds {max_model_len}. Shorten the prompt{hint}."
        elif max_tokens:
            total = prompt_tokens + max_tokens
            size = f"{prompt_tokens} {noun} and {max_tokens_field} is {max_tokens}: {total} tokens"
            message = f"The prompt has {size}, but the model's context holds {max_model_len}."
            message += f" Shorten the prompt{hint} or lower {max_tokens_field}."
        else:
            message = f"There are {prompt_tokens} tokens, but the model's context holds {max_model_len}."
            message += f" Shorten them{hint}."
        super().__init__(message, field=field)


class TooMuchAtOnce(InvalidRequest):
    """More than the server ever holds. `size` says how much it is, `remedy` what the caller can do."""

    def __init__(self, size: str, *, field: str | None = None, remedy: str = "Send it in parts.") -> None:
        super().__init__(f"{size} {remedy}", field=field)
        self.size = size


class OutputIncomplete(InvalidRequest):
    status = 422
    code = "output_incomplete"


class ValidationFailed(InvalidRequest):
    status = 422
    code = "validation_error"

    @classmethod
    def from_pydantic(cls, errors: Sequence[Mapping[str, Any]], *, is_item: bool = False) -> "ValidationFailed":
        """The first of pydantic's `errors()`, as the path of the field and what was expected there.

        is_item: of one of a batch, not of a whole body.
        """
        first = most_telling(errors)
        # Beside field names and list positions, a path holds pydantic's names for the members of a union.
        path = [part for part in first["loc"] if isinstance(part, int) or part.isidentifier()]
        if first["type"] == "extra_forbidden" and first["loc"][-1] not in path:
            path.append(first["loc"][-1])  # the caller's own name, which may be anything
        if first["type"] == "unused_input":  # of the whole body, and so without a place
            path.append(first["ctx"]["field"])
        field = ".".join(map(str, path))[:_MAX_FIELD_CHARS] or None
        if first["type"] == "json_invalid":
            # FastAPI has the place in the path, pydantic in its words.
            place = "".join(f", at character {position}" for position in path)
            return cls(f"The body is not valid JSON: {first['ctx']['error']}{place}.")
        if field is None and first["type"] in ("missing", "model_attributes_type", "model_type", "dict_type"):
            if is_item:
                return cls("Each of the inputs must be a JSON object.")
            return cls("The body must be a JSON object, sent with `Content-Type: application/json`.")
        if first["type"] == "extra_forbidden":
            return cls(f"There is no field {field or ''!r} here.", field=field)
        message = first["msg"].removeprefix("Value error, ")
        return cls(f"{field}: {message}" if field else message, field=field)


class Unauthorized(ZeroshotError):
    """`is_wrong`: credentials were sent, but can't be accepted."""

    status = 401
    code = "invalid_api_key"

    def __init__(self, message: str, *, is_wrong: bool = False) -> None:
        super().__init__(message)
        self.is_wrong = is_wrong


class HostNotAllowed(ZeroshotError):
    status = 403
    code = "host_not_allowed"


class UnknownTask(ZeroshotError):
    status = 404
    code = "unknown_task"


class UnknownModel(ZeroshotError):
    status = 404
    code = "unknown_model"


class RequestTimeout(ZeroshotError):
    status = 408
    code = "request_timeout"


class RequestTooLarge(ZeroshotError):
    status = 413
    code = "request_too_large"


class Overloaded(ZeroshotError):
    """`retry_after_s`: whole seconds until the queue has probably drained."""

    status = 429
    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimited(Overloaded):
    code = "rate_limited"


class ClientDisconnected(ZeroshotError):
    status = 499
    code = "client_disconnected"

    def __init__(self) -> None:
        super().__init__("The client closed the connection.")


class GenerationFailed(ZeroshotError):
    code = "generation_failed"


class NanLogits(GenerationFailed):
    code = "nan_logits"


class EngineUnavailable(ZeroshotError):
    status = 503
    code = "engine_unavailable"


class EngineRestarting(EngineUnavailable):
    code = "engine_restarting"


class Draining(EngineUnavailable):
    code = "draining"


class DeadlineExceeded(ZeroshotError):
    status = 504
    code = "timeout"


class WeightsError(ZeroshotError):
    code = "weights_error"


class SettingsError(ZeroshotError):
    code = "settings_error"


class PromptFileError(ZeroshotError):
    code = "prompt_file_error"


GENERATION_ERRORS: dict[str, type[GenerationFailed]] = {
    GenerationFailed.code: GenerationFailed,
    NanLogits.code: NanLogits,
}
"""The errors the engine process can put on a request, by the code it sends."""
