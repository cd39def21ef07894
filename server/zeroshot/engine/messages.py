"""What the HTTP process and the engine process say to each other. msgspec over ZeroMQ; never pickle.

    client --PUSH--> engine    Command: Generate, Abort
    engine --PUB-->  clients   STATE_TOPIC: EngineState, every HEARTBEAT_S, after a step that takes longer, and when
                               work ends
                               the client's id: list[TokenOutput], at most one message per step

Every command names the engine's generation: what was meant for an engine that has died is not for its successor.
"""

import signal

import msgspec

from zeroshot.types import EngineStats, GenerateRequest, TokenOutput

HEARTBEAT_S = 0.1
EXIT_REFUSED = 78
"""Exit code of an engine process that can't run what it was told to. Another one would end the same way."""
GROUP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})
"""Ctrl-C goes to all processes of a terminal's group, `systemctl stop` to all of a service: the engine ignores them,
since running requests are still answered. It is ended by SIGKILL, or ends itself once its parent is gone."""
STATE_TOPIC = b"state"


class Generate(msgspec.Struct, tag=True, frozen=True):
    client_id: bytes
    generation: int
    request: GenerateRequest
    is_patient: bool = False
    """Its outputs may come together: with the first token, with every heartbeat, and at the end. See `outbox.py`."""


class Abort(msgspec.Struct, tag=True, frozen=True):
    client_id: bytes
    generation: int
    request_id: str
    choice_index: int | None = None


Command = Generate | Abort


class EngineState(msgspec.Struct, frozen=True):
    """The heartbeat: sent only by an engine that has loaded its model and generated a first token with it."""

    generation: int
    stats: EngineStats


class Launch(msgspec.Struct, frozen=True):
    """How the supervisor starts an engine process: one JSON document on its standard input."""

    generation: int
    parent_pid: int
    command_address: str
    output_address: str
    settings: msgspec.Raw


encode = msgspec.msgpack.Encoder().encode
decode_command = msgspec.msgpack.Decoder(Command).decode
decode_state = msgspec.msgpack.Decoder(EngineState).decode
decode_outputs = msgspec.msgpack.Decoder(list[TokenOutput]).decode
