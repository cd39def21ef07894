"""The engine process: owns the device and all torch state. Started by `supervisor.py`; ends when its parent does."""

import logging
import os
import signal
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec
import zmq

from zeroshot.engine.engine import Engine
from zeroshot.engine.guide import Guide
from zeroshot.engine.loader import load_engine
from zeroshot.engine.messages import (
    EXIT_REFUSED,
    GROUP_SIGNALS,
    HEARTBEAT_S,
    STATE_TOPIC,
    Abort,
    EngineState,
    Generate,
    Launch,
    decode_command,
    encode,
)
from zeroshot.engine.outbox import Outbox
from zeroshot.errors import GenerationFailed, SettingsError, UnknownModel, WeightsError, ZeroshotError
from zeroshot.garbage_collection import freeze_loaded_objects
from zeroshot.settings import EngineSettings
from zeroshot.telemetry import logs
from zeroshot.types import GenerateRequest, SamplingParams, TokenOutput

logger = logging.getLogger("zeroshot.engine.process")  # run as a module, __name__ says nothing

_COMPILING_POLL_MS = 2


class EngineProcess:
    """The loop: take commands, step, publish. Sleeps in `poll` when there is nothing to do."""

    def __init__(self, engine: Engine, launch: Launch) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.engine = engine
        self.generation = launch.generation
        self.parent_pid = launch.parent_pid
        self.outbox = Outbox()
        self.compiler = ThreadPoolExecutor(1, thread_name_prefix="grammar")  # gives way to the loop: no GIL in there
        self.compiling: dict[str, tuple[Generate, Future[Guide]]] = {}  # request id -> what waits for its grammar
        self.commands = context.socket(zmq.PULL)
        self.commands.set_hwm(0)
        self.commands.bind(launch.command_address)
        self.outputs = context.socket(zmq.PUB)
        self.outputs.set_hwm(0)  # the queue is bounded by what clients may have in flight, never by dropping tokens
        self.outputs.bind(launch.output_address)

    def run(self) -> None:
        """Until the parent process is gone."""
        last_heartbeat = 0.0
        while os.getppid() == self.parent_pid:
            idle_ms = _COMPILING_POLL_MS if self.compiling else int(HEARTBEAT_S * 1000)
            self._receive(timeout_ms=0 if self.engine.has_work else idle_ms)
            self._add_compiled()
            outputs = self.engine.step() if self.engine.has_work else []
            now = time.monotonic()
            # The state goes first when work ends: whoever has the last answer finds it counted.
            is_heartbeat = now - last_heartbeat >= HEARTBEAT_S or (bool(outputs) and not self.engine.has_work)
            if is_heartbeat:
                last_heartbeat = now
                state = EngineState(self.generation, self.engine.stats())
                self.outputs.send_multipart([STATE_TOPIC, encode(state)])
            self._publish(outputs, now, everything=is_heartbeat)

    def _receive(self, timeout_ms: int) -> None:
        if self.commands.poll(timeout_ms):
            while True:
                try:
                    message = self.commands.recv(zmq.NOBLOCK)
                except zmq.Again:
                    return
                self._handle(decode_command(message))

    def _handle(self, command: Generate | Abort) -> None:
        if command.generation != self.generation:
            return
        match command:
            case Generate(request=request) if (grammar := request.sampling_params.grammar) is not None:
                future = self.compiler.submit(self.engine.guides.compile, grammar)
                self.compiling[request.request_id] = command, future
            case Generate():
                self._add(command)
            case Abort(request_id=request_id, choice_index=choice_index):
                if request_id in self.compiling:
                    _, future = self.compiling.pop(request_id)
                    future.cancel()  # one that is running goes on, and is kept for whoever asks next
                self.engine.abort(request_id, choice_index)
                if not self.engine.is_active(request_id):
                    self.outbox.forget(request_id)

    def _add(self, command: Generate, guide: Guide | None = None) -> None:
        request = command.request
        try:
            self.engine.add_request(request, guide)
            self.outbox.expect(command)
        except ZeroshotError as error:
            self._publish_to(command.client_id, [_refusal(request, error)])

    def _add_compiled(self) -> None:
        """Take in the requests whose grammar is compiled; send back those whose grammar was refused."""
        for request_id, (command, future) in list(self.compiling.items()):
            if not future.done():
                continue
            del self.compiling[request_id]
            error = future.exception()
            if error is None:
                self._add(command, future.result())
                continue
            if not isinstance(error, ZeroshotError):
                logger.error("a grammar could not be compiled", exc_info=error)
                error = GenerationFailed("The engine failed on this request's grammar; see its log.")
            self._publish_to(command.client_id, [_refusal(command.request, error)])

    def _publish(self, outputs: list[TokenOutput], now: float, *, everything: bool) -> None:
        """One message per client at most."""
        self.outbox.put(outputs)
        for client_id, due in self.outbox.take(now, everything=everything).items():
            self._publish_to(client_id, due)
        for output in outputs:
            if not self.engine.is_active(output.request_id):
                self.outbox.forget(output.request_id)

    def _publish_to(self, client_id: bytes, outputs: list[TokenOutput]) -> None:
        self.outputs.send_multipart([client_id, encode(outputs)])


def _refusal(request: GenerateRequest, error: ZeroshotError) -> TokenOutput:
    return TokenOutput(
        request_id=request.request_id,
        finish_reason="error",
        error_code=error.code,
        error_message=error.message,
        error_field=error.field,
    )


def probe(engine: Engine) -> None:
    """Generate one token, so that "ready" means what it says. Raises if that fails."""
    params = SamplingParams(max_tokens=1, temperature=0.0)
    engine.add_request(GenerateRequest(request_id="probe", prompt_token_ids=[0], sampling_params=params))
    while engine.has_work:
        for output in engine.step():
            if output.finish_reason == "error":
                raise RuntimeError(f"the engine's first token failed: {output.error_message}")


def main() -> None:
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the parent decides when we stop
    message = sys.stdin.buffer.read()
    if not message:  # whoever started this process ended before it knew what to load
        return
    launch = msgspec.json.decode(message, type=Launch)
    if os.getppid() != launch.parent_pid:
        return
    settings = EngineSettings.model_validate_json(bytes(launch.settings))
    logs.configure(settings.log_format, settings.log_level, "engine")
    started = time.monotonic()
    try:
        engine = load_engine(settings)
    except (SettingsError, UnknownModel, WeightsError) as error:
        logger.error("%s", error)
        sys.exit(EXIT_REFUSED)
    engine.guides.warm_up()
    probe(engine)
    freeze_loaded_objects()
    logger.info("ready in %.1f s (generation %d)", time.monotonic() - started, launch.generation)
    EngineProcess(engine, launch).run()


if __name__ == "__main__":
    main()
