"""One step: schedule, forward, sample, append, finish. Synchronous and deterministic; knows no process or socket.

engine = Engine(model, settings)
engine.add_request(request)
while engine.has_work:
    outputs = engine.step()
"""

import logging
import time

import msgspec
import torch

from zeroshot.engine.assembly import make_guessing, make_runner, step_budget
from zeroshot.engine.beam_sequences import begin_search, continue_search
from zeroshot.engine.beams import BeamSearch, Candidate
from zeroshot.engine.block_manager import BlockManager
from zeroshot.engine.decode_state import MAX_STEPS
from zeroshot.engine.guide import Guide, GuideCompiler
from zeroshot.engine.memory import num_kv_blocks
from zeroshot.engine.request_check import check_beams, check_request
from zeroshot.engine.runner import StepResult
from zeroshot.engine.sampler import SampledToken, draws_before_mask
from zeroshot.engine.scheduler import ScheduledSequence, Scheduler
from zeroshot.engine.sequence import Sequence
from zeroshot.engine.speculative import max_decode_rows
from zeroshot.errors import GenerationFailed, InvalidRequest, NanLogits, ZeroshotError
from zeroshot.model.gpt2 import GPT2
from zeroshot.settings import EngineSettings
from zeroshot.types import EngineStats, FinishReason, GenerateRequest, TokenOutput

logger = logging.getLogger(__name__)


class Engine:
    """Every block a request takes comes back, whatever ends it; no request's failure ends the step loop."""

    def __init__(self, model: GPT2, settings: EngineSettings, draft: GPT2 | None = None) -> None:
        """draft: the model that guesses, if there is one. Raises SettingsError for settings that don't go together."""
        config = model.config
        self.model = model
        block_size = settings.kv_block_size or model.backend.kv_block_size
        num_blocks = num_kv_blocks(model, settings, block_size)
        budget = step_budget(model.device, settings)
        self.runner = make_runner(
            model,
            num_blocks,
            block_size,
            max_rows=max_decode_rows(settings),
            max_prompt_tokens=budget.max_num_batched_tokens,
        )
        self.guides = GuideCompiler(settings.model_folder, config)
        self.block_manager = BlockManager(num_blocks, block_size)
        self.scheduler = Scheduler(
            self.block_manager,
            max_num_seqs=settings.max_num_seqs,
            max_num_batched_tokens=budget.max_num_batched_tokens,
            max_prompt_tokens_beside_decodes=budget.max_prompt_tokens_beside_decodes,
            guessing=make_guessing(model, settings, draft),
        )
        self._sequences: dict[str, list[Sequence]] = {}
        self._outputs: dict[tuple[str, int], TokenOutput] = {}
        self._step_started_at = 0.0
        self._prompt_tokens_total = self._cached_tokens_total = self._generation_tokens_total = self._steps_total = 0
        self._guessed_tokens_total = self._accepted_tokens_total = 0

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def stats(self) -> EngineStats:
        return EngineStats(
            num_running=len(self.scheduler.running),
            num_waiting=len(self.scheduler.waiting),
            num_kv_blocks=self.block_manager.num_blocks,
            num_free_kv_blocks=self.block_manager.num_free_blocks,
            prompt_tokens_total=self._prompt_tokens_total,
            cached_tokens_total=self._cached_tokens_total,
            generation_tokens_total=self._generation_tokens_total,
            steps_total=self._steps_total,
            guessed_tokens_total=self._guessed_tokens_total,
            accepted_tokens_total=self._accepted_tokens_total,
            kernels=self.model.backend.states,
        )

    def add_request(self, request: GenerateRequest, guide: Guide | None = None) -> None:
        """Queue a request. Raises InvalidRequest if it could never run or its tokens are not in the vocabulary.

        guide: its grammar, if `guides` has compiled it already; else that is done here, which may take seconds.
        """
        self._check(request)
        grammar = request.sampling_params.grammar
        if grammar is not None and guide is None:
            guide = self.guides.compile(grammar)
        request = self._with_all_ends(request)
        sequences = [
            Sequence(
                request_id=request.request_id,
                choice_index=choice_index,
                token_ids=list(request.prompt_token_ids),
                num_prompt_tokens=len(request.prompt_token_ids),
                sampling_params=request.sampling_params,
                cache_salt=request.cache_salt,
                pin_prompt=request.pin_prompt,
                guide=None if guide is None else guide.fork(),
            )
            for choice_index in range(1 if request.sampling_params.beams else request.n)
        ]
        if request.sampling_params.beams is not None:
            begin_search(sequences[0], request, request.sampling_params.beams, self.model.config.eos_token_id)
        self._sequences[request.request_id] = sequences
        for sequence in sequences:
            self.scheduler.add(sequence)

    def _with_all_ends(self, request: GenerateRequest) -> GenerateRequest:
        """What the checkpoint has for ends of text beside its first one are stop tokens of each request.

        With a grammar, which says where the text ends, only those that it knows as ends.
        """
        params = request.sampling_params
        others = self.model.config.other_eos_token_ids if params.grammar is None else self.guides.other_eos_token_ids
        if not others or params.ignore_eos:
            return request
        params = msgspec.structs.replace(params, stop_token_ids=(*params.stop_token_ids, *others))
        return msgspec.structs.replace(request, sampling_params=params)

    def is_active(self, request_id: str) -> bool:
        """True while a choice of the request is waiting or running."""
        return request_id in self._sequences

    def abort(self, request_id: str, choice_index: int | None = None) -> None:
        """End a request, or one choice of it, now. Nothing more is sent for it. Unknown ids are ignored."""
        for sequence in list(self._sequences.get(request_id, ())):
            if choice_index in (None, sequence.choice_index) or sequence.beams is not None:
                sequence.finish_reason = "abort"
                self._release(sequence)

    def step(self) -> list[TokenOutput]:
        """Run one batch and say what each choice in it got."""
        scheduled = self.scheduler.schedule()
        if not scheduled:
            return []
        self._steps_total += 1
        self._step_started_at = time.monotonic()
        num_prompt_tokens = sum(item.num_tokens for item in scheduled if not item.sequence.is_decoding)
        self._compute_masks(scheduled)
        self._run([item for item in scheduled if not item.sequence.is_finished])
        self.scheduler.observe(num_prompt_tokens, time.monotonic() - self._step_started_at)
        outputs = list(self._outputs.values())
        self._outputs.clear()
        return outputs

    def _steps_ahead(self) -> int:
        """0 where a guess is due, which needs the newest token; 1 where a request waits for a step to end."""
        if self.scheduler.may_guess:
            return 0
        return 1 if self.scheduler.waiting else MAX_STEPS

    def _compute_masks(self, scheduled: list[ScheduledSequence]) -> None:
        for item in scheduled:
            guide = item.sequence.guide
            if guide is None or not item.needs_sample:
                continue
            if self.model.backend.sampling_kernels and draws_before_mask(item.sequence, guide):
                guide.mask = None
                continue
            try:
                guide.compute_mask()
            except InvalidRequest as error:
                self._fail(item.sequence, error)

    def _run(self, scheduled: list[ScheduledSequence]) -> None:
        """If a batch fails, its sequences are run again one by one, so that only those at fault end with an error."""
        if not scheduled:
            return
        try:
            result = self.runner.execute(scheduled, steps_ahead=self._steps_ahead())
        except Exception:  # whatever it was, the loop goes on
            logger.exception("a step over %d sequences failed", len(scheduled))
            if len(scheduled) == 1:
                self._fail(scheduled[0].sequence, GenerationFailed("The engine failed on this request; see its log."))
            else:
                for item in scheduled:
                    self._run([] if item.sequence.is_finished else [item])
            return
        self._advance(scheduled)
        lengths = [item.sequence.num_tokens for item in scheduled]
        self._apply(result)
        self._count_guesses(scheduled, lengths, result)

    def _advance(self, scheduled: list[ScheduledSequence]) -> None:
        for item in scheduled:
            sequence = item.sequence
            if sequence.num_computed_tokens == sequence.num_cached_tokens:
                self._prompt_tokens_total += sequence.num_prompt_tokens
                self._cached_tokens_total += sequence.num_cached_tokens
                output = self._output(sequence)
                output.num_cached_tokens = sequence.num_cached_tokens
                output.scheduled_at = self._step_started_at
            sequence.num_computed_tokens += item.num_tokens

    def _count_guesses(self, scheduled: list[ScheduledSequence], lengths: list[int], result: StepResult) -> None:
        """lengths: of each scheduled sequence, before it got what was drawn: nothing behind the end of its text."""
        for item, length in zip(scheduled, lengths, strict=True):
            if item.guessed:
                num_drawn = sum(sequence is item.sequence for sequence, _ in result.sampled)
                self._guessed_tokens_total += len(item.guessed)
                # The last one drawn was not a guess.
                self._accepted_tokens_total += min(max(0, num_drawn - 1), item.sequence.num_tokens - length)

    def _apply(self, result: StepResult) -> None:
        for sequence in result.not_finite:
            self._fail_nan(sequence)
        for sequence, logprobs in result.prompt_logprobs:
            if sequence.is_finished:
                continue
            finite = [logprob for logprob in logprobs if logprob is not None]
            if len(finite) < len(logprobs):
                self._fail_nan(sequence)
            else:
                self._output(sequence).prompt_logprobs = finite
        for sequence, sampled in result.sampled:
            if sequence.is_finished:
                continue
            if sequence.beams is not None and sampled.candidates is not None:
                self._collect(sequence, sequence.beams, sampled.candidates)
            else:
                self._append(sequence, sampled)
        for sequence in list(self.scheduler.running):
            self.block_manager.commit(sequence)
            if sequence.num_uncomputed_tokens == 0 and sequence.sampling_params.max_tokens == 0:  # only scored
                self._finish(sequence, "length")

    def _append(self, sequence: Sequence, sampled: SampledToken) -> None:
        if sampled.refusal is not None:
            self._fail(sequence, sampled.refusal)
            return
        if sampled.token_id is None:
            self._fail_nan(sequence)
            return
        sequence.num_computed_tokens = sequence.num_tokens  # a runner that runs several steps at once has done them all
        sequence.token_ids.append(sampled.token_id)
        self._generation_tokens_total += 1
        output = self._output(sequence)
        output.token_ids = [*output.token_ids, sampled.token_id]
        if sampled.logprob is not None:
            output.logprobs = [*output.logprobs, sampled.logprob]
        params = sequence.sampling_params
        is_eos = sampled.token_id == self.model.config.eos_token_id and not params.ignore_eos
        if is_eos or sampled.token_id in params.stop_token_ids:
            output.stop_token_id = sampled.token_id
            self._finish(sequence, "stop")
        elif sequence.guide is not None and not self._follow(sequence, sequence.guide):
            return
        elif sequence.num_tokens == sequence.max_num_tokens:
            self._finish(sequence, "length")

    def _collect(self, beam: Sequence, search: BeamSearch, candidates: list[Candidate]) -> None:
        """Once every beam has its candidates, all move on together."""
        search.candidates[beam.choice_index] = candidates
        if not search.is_ready:
            return
        beams = self._sequences[beam.request_id]
        continuations = search.advance([sequence.output_token_ids for sequence in beams])
        self._generation_tokens_total += len(continuations)
        if search.is_over:
            self._finish_search(beam, search)
        else:
            continue_search(search, beams, continuations, self.scheduler, self.runner.kv_cache)

    def _finish_search(self, beam: Sequence, search: BeamSearch) -> None:
        for index, hypothesis in enumerate(search.finished[: search.num_returned]):
            output = self._output_of(beam.request_id, index)
            output.token_ids, output.beam_score = hypothesis.token_ids, hypothesis.score
            output.stop_token_id = hypothesis.stop_token_id
            output.finish_reason = "length" if hypothesis.stop_token_id is None else "stop"
        for sequence in list(self._sequences[beam.request_id]):
            sequence.finish_reason = "stop"
            self._release(sequence)

    def _follow(self, sequence: Sequence, guide: Guide) -> bool:
        """Take the newest token as the guide's next. False if the sequence has ended with it."""
        try:
            guide.accept(sequence.token_ids[-1])
        except InvalidRequest as error:
            self._fail(sequence, error)
            return False
        if guide.is_complete:
            self._finish(sequence, "stop")
        return not guide.is_complete

    def _output(self, sequence: Sequence) -> TokenOutput:
        return self._output_of(sequence.request_id, sequence.choice_index)

    def _output_of(self, request_id: str, choice_index: int) -> TokenOutput:
        key = (request_id, choice_index)
        if key not in self._outputs:
            self._outputs[key] = TokenOutput(request_id=request_id, choice_index=choice_index)
        return self._outputs[key]

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        sequence.finish_reason = self._output(sequence).finish_reason = reason
        self.block_manager.commit(sequence)
        if sequence.pin_prompt:
            self.block_manager.pin(sequence)
        self._release(sequence)

    def _fail(self, sequence: Sequence, error: ZeroshotError) -> None:
        # A beam is no choice: what ends one ends the whole search, which the first choice is told.
        index = 0 if sequence.beams is not None else sequence.choice_index
        output = self._output_of(sequence.request_id, index)
        output.finish_reason = "error"
        output.error_code, output.error_message, output.error_field = error.code, error.message, error.field
        beams = list(self._sequences[sequence.request_id]) if sequence.beams is not None else [sequence]
        for failed in beams:
            # What it wrote must not be read again. After NaN even its cached prefix is suspect, or that would fail
            # for ever; an exception leaves what earlier steps have committed as it was.
            num_trusted = 0 if isinstance(error, NanLogits) else failed.num_committed_blocks
            self.runner.kv_cache.clear(self.block_manager.forget(failed, num_trusted=num_trusted))
            failed.finish_reason = "error"
            self._release(failed)

    def _fail_nan(self, sequence: Sequence) -> None:
        if not sequence.is_finished:
            if self.model.kv_dtype == torch.float16:
                logger.warning("not finite: keys may not fit fp16; try --kv-dtype fp32, on a GPU --dtype bf16")
            self._fail(sequence, NanLogits("The model's logits for this request are not finite (NaN or infinity)."))

    def _release(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        siblings = self._sequences[sequence.request_id]
        siblings.remove(sequence)
        if not siblings:
            del self._sequences[sequence.request_id]

    def _check(self, request: GenerateRequest) -> None:
        check_request(request, self.model.config)
        params = request.sampling_params
        if params.beams is not None:
            num_blocks = self.block_manager.num_blocks_for(len(request.prompt_token_ids) + params.max_tokens)
            room = min(self.block_manager.num_blocks // num_blocks, self.scheduler.max_num_seqs)
            check_beams(request, params.beams, max_beams=room)
        if request.request_id in self._sequences:
            raise InvalidRequest(f"Request id {request.request_id} is in use.")
