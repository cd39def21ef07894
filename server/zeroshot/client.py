"""`EngineClient`: the `ModelClient` of one engine process on this machine. An asyncio façade; imports no torch.

Sends requests, hands each one its tokens as text, cuts stop strings, refuses what the queue can't hold, and turns the
engine's death into an error for everyone who was waiting for it.
"""

import asyncio
import logging
import subprocess
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import ExitStack, aclosing, suppress
from itertools import chain
from pathlib import Path

import msgspec
import zmq

from zeroshot.admission import Admission
from zeroshot.caller import CALLER
from zeroshot.engine.messages import STATE_TOPIC, Abort, Command, Generate, decode_outputs, decode_state, encode
from zeroshot.engine.supervisor import EngineSupervisor
from zeroshot.errors import (
    GENERATION_ERRORS,
    EngineRestarting,
    EngineUnavailable,
    GenerationFailed,
    InvalidRequest,
    ZeroshotError,
)
from zeroshot.mailbox import Mailbox
from zeroshot.model_client import REFUSED, ChoiceDelta, ModelClient
from zeroshot.settings import Settings
from zeroshot.telemetry.engine_collector import EngineReport, LifetimeTotals
from zeroshot.telemetry.timeline import Timeline
from zeroshot.text.detokenizer import Detokenizer
from zeroshot.text.grammar_check import GrammarChecker
from zeroshot.types import EngineStats, GenerateRequest, SamplingParams, TokenOutput, split

logger = logging.getLogger(__name__)


class EngineClient(ModelClient):
    """The only door between HTTP and an engine: starts its process, supervises it, ends it."""

    def __init__(
        self, settings: Settings, model_folder: Path, process: "subprocess.Popen[bytes] | None" = None
    ) -> None:
        """process: the engine's, if it was started already."""
        super().__init__(model_folder, max_queued_seqs=settings.max_queued_seqs)
        self.admission = Admission(max_seqs=settings.max_queued_seqs, max_tokens=settings.max_queued_tokens)
        self._logs_prompts = settings.log_prompts
        self.supervisor = EngineSupervisor(
            settings.engine_settings(model_folder),
            hang_timeout_s=settings.engine_hang_timeout_s,
            start_timeout_s=settings.engine_start_timeout_s,
            on_down=self._engine_is_down,
            on_refused=self._engine_has_refused,
            process=process,
        )
        self.metrics.watch_engine(self._report)
        self._totals = LifetimeTotals()
        self._grammars = GrammarChecker()
        self._client_id = uuid.uuid4().bytes
        self._mailboxes: dict[str, Mailbox] = {}
        self._timelines: dict[str, Timeline] = {}
        self._refusal: ZeroshotError | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None

    @property
    def num_restarts(self) -> int:
        return self.supervisor.num_restarts

    @property
    def engines(self) -> int:
        return self.supervisor.generation

    async def start(self) -> None:
        self._context = zmq.Context()
        self._commands = self._context.socket(zmq.PUSH)
        self._commands.set_hwm(0)
        self._commands.connect(self.supervisor.command_address)
        self._outputs = self._context.socket(zmq.SUB)
        self._outputs.set_hwm(0)
        # In this order: a heartbeat received proves that the engine also knows of the subscription before it.
        self._outputs.subscribe(self._client_id)
        self._outputs.subscribe(STATE_TOPIC)
        self._outputs.connect(self.supervisor.output_address)
        asyncio.get_running_loop().add_reader(self._outputs.FD, self._receive)
        self.supervisor.start()

    async def stop(self) -> None:
        await self.supervisor.stop()
        if self._context is not None and not self._context.closed:  # a replica that can't start is stopped twice
            asyncio.get_running_loop().remove_reader(self._outputs.FD)
            self._commands.close(linger=0)
            self._outputs.close(linger=0)
            self._context.term()

    async def generate(
        self, request: GenerateRequest, *, is_patient: bool = False
    ) -> AsyncGenerator[ChoiceDelta, None]:
        request = msgspec.structs.replace(request, cache_salt=CALLER.get().cache_salt)
        grammar = request.sampling_params.grammar
        if grammar is not None:
            async with CALLER.get().within_deadline():
                await self._grammars.check(grammar)
        self.check(request)
        with ExitStack() as held:
            held.enter_context(self.admission.hold(request))
            async with aclosing(self._run(request, is_patient, held.close)) as deltas:
                async for delta in deltas:
                    yield delta

    async def _run(
        self, request: GenerateRequest, is_patient: bool, release: Callable[[], None]
    ) -> AsyncGenerator[ChoiceDelta, None]:
        def on_end(error: Exception | None) -> None:
            """The engine is done with the request, even if nobody has read all of its outputs yet."""
            release()
            if error is not None:
                self._abort(request, None)

        is_patient, is_one_by_one = _pace(request.sampling_params, is_patient)
        mailbox = Mailbox(is_patient=is_patient, num_choices=request.n, on_end=on_end)
        self._mailboxes[request.request_id] = mailbox
        timeline = self._timelines[request.request_id] = Timeline(self.metrics, request)
        timer = _deadline(mailbox)
        detokenizers = self._detokenizers(request)  # of the choices that have not ended
        self._log_prompt(request)
        self._send(Generate(self._client_id, self.supervisor.generation, request, is_patient))
        try:
            while detokenizers:
                outputs = await mailbox.get()
                for output in chain.from_iterable(map(split, outputs)) if is_one_by_one else outputs:
                    index = output.choice_index
                    if index not in detokenizers:
                        continue  # a step that was already running when we ended this choice
                    delta = self._delta(output, detokenizers[index])
                    timeline.delivered(index, len(delta.token_ids), delta.num_cached_tokens, delta.finish_reason)
                    if delta.finish_reason is not None:
                        del detokenizers[index]
                        if output.finish_reason is None:
                            self._abort(request, index)
                            mailbox.end(index)
                    yield delta
        except ZeroshotError as error:
            timeline.error_code = error.code
            raise
        finally:
            timeline.ended(unfinished=detokenizers)
            if timer is not None:
                timer.cancel()
            if detokenizers:
                self._abort(request, None)
            del self._mailboxes[request.request_id], self._timelines[request.request_id]

    def _detokenizers(self, request: GenerateRequest) -> dict[int, Detokenizer]:
        params = request.sampling_params
        return {
            index: Detokenizer(self.tokenizer, params.stop, min_tokens=params.min_tokens, keep=params.keep)
            for index in range(request.n)
        }

    def _log_prompt(self, request: GenerateRequest) -> None:
        if self._logs_prompts:
            prompt = self.tokenizer.decode(request.prompt_token_ids)
            logger.info("prompt", extra={"fields": {"engine_request": request.request_id, "prompt": prompt}})

    def share_among(self, num_callers: int) -> None:
        self.admission.share_among(num_callers)
        self._grammars.share_among(num_callers)

    def check(self, request: GenerateRequest) -> None:
        if self._refusal is not None:
            raise self._refusal
        super().check(request)

    def check_room(self, requests: Sequence[GenerateRequest]) -> None:
        for request in requests:
            self.check(request)
        self.admission.check(requests, CALLER.get().cache_salt)

    def _delta(self, output: TokenOutput, detokenizer: Detokenizer) -> ChoiceDelta:
        text = detokenizer.feed(output.token_ids, is_last=output.finish_reason is not None)
        is_stopped = detokenizer.has_ended
        return ChoiceDelta(
            index=output.choice_index,
            text=text,
            token_ids=output.token_ids,
            logprobs=output.logprobs,
            prompt_logprobs=output.prompt_logprobs,
            finish_reason="stop" if is_stopped else output.finish_reason,
            stop_reason=detokenizer.stop if is_stopped else output.stop_token_id,
            num_cached_tokens=output.num_cached_tokens,
            beam_score=output.beam_score,
        )

    def _send(self, command: Command) -> None:
        self._commands.send(encode(command), zmq.NOBLOCK)

    def _abort(self, request: GenerateRequest, choice_index: int | None) -> None:
        if not self._commands.closed:
            self._send(Abort(self._client_id, self.supervisor.generation, request.request_id, choice_index))

    def _receive(self) -> None:
        for topic, payload in self._arrived():
            if topic == STATE_TOPIC:
                state = decode_state(payload)
                if self.supervisor.heard(state.generation):
                    self.status = "ready"
                    self.stats = state.stats
                    self._totals.update(state.generation, state.stats)
                    self.admission.rate.observe(state.stats, time.monotonic())
            else:
                self._hand_out(decode_outputs(payload))

    def _arrived(self) -> Iterator[list[bytes]]:
        """Every message that has come: ZeroMQ's descriptor tells of the first one only, so none may be left."""
        with suppress(zmq.Again):
            while True:
                yield self._outputs.recv_multipart(zmq.NOBLOCK)

    def _hand_out(self, outputs: list[TokenOutput]) -> None:
        """One step's outputs, to those who wait for them."""
        now = time.monotonic()
        for output in outputs:
            mailbox = self._mailboxes.get(output.request_id)
            if mailbox is not None:
                self._timelines[output.request_id].received(output, now)
                _deliver(output, mailbox)
        self.metrics.inter_token_latency.flush()

    def _report(self) -> EngineReport:
        process = self.supervisor.process
        return EngineReport(
            is_up=self.status == "ready",
            pid=None if process is None else process.pid,
            num_restarts=self.num_restarts,
            stats=self.stats,
            totals=self._totals,
        )

    def refuse_all(self, error: ZeroshotError) -> None:
        """Every request that is running or waiting ends with this error, and so does each that comes after them."""
        self._refusal = error
        self._end_all(error)

    def _end_all(self, error: ZeroshotError) -> None:
        for mailbox in self._mailboxes.values():
            mailbox.fail(error)

    def _engine_is_down(self, reason: str) -> None:
        if self.status == "ready":
            self.status = "restarting"
        self.stats = EngineStats()
        self._end_all(EngineRestarting(f"The engine {reason} and is being restarted. Send the request again."))

    def _engine_has_refused(self) -> None:
        self.status = "refused"
        self._end_all(EngineUnavailable(REFUSED))


def _pace(params: SamplingParams, is_patient: bool) -> tuple[bool, bool]:
    """Whether the engine may hold tokens back to send them together, and whether each token has a delta of its own.

    Where a stop string or `keep` can end the text, any token may be the last one: each has to be seen at once. And a
    stream with log-probabilities has a piece for each token, which is what TGI's clients expect.
    """
    is_watched = bool(params.stop) or params.keep != "all"
    may_hold = is_patient and not is_watched
    return may_hold, is_watched or (params.logprobs is not None and not may_hold)


def _deliver(output: TokenOutput, mailbox: Mailbox) -> None:
    """An error ends the request, after the tokens that came with it."""
    if output.error_code is None:
        mailbox.put(output)
        return
    if output.token_ids:
        mailbox.put(msgspec.structs.replace(output, finish_reason=None, error_code=None))
    mailbox.fail(_error_of(output))


def _error_of(output: TokenOutput) -> ZeroshotError:
    """The engine's error, as one that can be raised here."""
    if output.error_code == InvalidRequest.code:
        return InvalidRequest(output.error_message, field=output.error_field)
    return GENERATION_ERRORS.get(output.error_code or "", GenerationFailed)(output.error_message)


def _deadline(mailbox: Mailbox) -> asyncio.TimerHandle | None:
    """Ends the request with DeadlineExceeded when its caller's time is up. None if it may take for ever."""
    caller = CALLER.get()
    remaining_s = caller.remaining_s
    if remaining_s is None:
        return None
    return asyncio.get_running_loop().call_later(remaining_s, mailbox.fail, caller.too_late())
