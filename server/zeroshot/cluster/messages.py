"""What an ingress and a replica say to each other: msgspec, as between the HTTP process and its engine.

ingress --> replica   Call
replica --> ingress   Reply: Deltas, as many as there are; or one Failure, which ends the call
replica --> ingress   Report, when asked
"""

import time
from collections.abc import Mapping

import msgspec

from zeroshot.caller import Caller
from zeroshot.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineRestarting,
    EngineUnavailable,
    GenerationFailed,
    InvalidRequest,
    NanLogits,
    Overloaded,
    ZeroshotError,
)
from zeroshot.model_client import ChoiceDelta, EngineStatus
from zeroshot.types import EngineStats, GenerateRequest


class Call(msgspec.Struct, frozen=True):
    """One request, and of its caller what the engine's side needs. Clocks differ between machines: spans, no times."""

    request: GenerateRequest
    is_patient: bool
    cache_salt: bytes
    timeout_s: float
    """Infinity: no deadline."""
    elapsed_s: float
    """How much of that had passed when the call was sent."""

    @classmethod
    def of(cls, request: GenerateRequest, is_patient: bool, caller: Caller) -> "Call":
        elapsed_s = time.monotonic() - caller.arrival if caller.arrival else 0.0
        return cls(request, is_patient, caller.cache_salt, caller.timeout_s, elapsed_s)

    def caller(self) -> Caller:
        """By this machine's clock, as if the request had come straight here."""
        return Caller(self.cache_salt, time.monotonic() - self.elapsed_s, self.timeout_s, self.timeout_s)


class Deltas(msgspec.Struct, tag=True):
    deltas: list[ChoiceDelta]


class Failure(msgspec.Struct, tag=True, frozen=True):
    """A ZeroshotError."""

    code: str
    message: str
    field: str | None = None
    retry_after_s: int = 1

    @classmethod
    def of(cls, error: ZeroshotError) -> "Failure":
        retry_after_s = error.retry_after_s if isinstance(error, Overloaded) else 1
        return cls(error.code, error.printable_message, error.field, retry_after_s)

    def error(self) -> ZeroshotError:
        """To be raised here. A code that a newer replica knows and this side doesn't is a failed generation."""
        if self.code == Overloaded.code:
            return Overloaded(self.message, retry_after_s=self.retry_after_s)
        return _ERRORS.get(self.code, GenerationFailed)(self.message, field=self.field)


Reply = Deltas | Failure

_ERRORS: Mapping[str, type[ZeroshotError]] = {
    InvalidRequest.code: InvalidRequest,
    ContextLengthExceeded.code: InvalidRequest,  # an ingress has the same limit, and makes this error itself
    GenerationFailed.code: GenerationFailed,
    NanLogits.code: NanLogits,
    EngineUnavailable.code: EngineUnavailable,
    EngineRestarting.code: EngineRestarting,
    DeadlineExceeded.code: DeadlineExceeded,
}


class Report(msgspec.Struct, frozen=True):
    """What a replica says of itself."""

    replica: str
    status: EngineStatus
    generation: int
    """Of its engine: grows with each restart."""
    num_restarts: int
    stats: EngineStats


encode = msgspec.msgpack.Encoder().encode
decode_call = msgspec.msgpack.Decoder(Call).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode
decode_report = msgspec.msgpack.Decoder(Report).decode
