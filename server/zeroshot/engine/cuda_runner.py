"""The `Runner` of a GPU, a step ahead of the host.

    host      execute(N)              | append, stop, schedule | execute(N + 1)
    device    ... N | copy of N's tokens | N + 1 (already launched) ...

Before it waits for N's tokens, `execute(N)` launches N + 1 for every sequence that draws in N and may go on. The tokens
are on the device already; only the host will know whether they end a sequence. If they do, what N + 1 draws for it is
ignored. The slot that N + 1 fills does no harm: it lies past what the host counts as computed, in a block that was the
sequence's own when the step was launched, and the stream's order makes the block's next owner write after it.

Decodes and prefills are steps of their own. Both replay graphs: decodes those that were recorded at the start, for
numbers of rows and kinds of steps; prefills those of `prompt_forward.py`. Sequences whose every token the host chooses,
beams and those of typical decoding, run as prefills do. Nor is there a step ahead of a guess, which the host makes from
the newest token.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from zeroshot.engine.batch import Batch, build_batch
from zeroshot.engine.decode_record import Layout, last_position
from zeroshot.engine.decode_state import MAX_STEPS, DecodeState, Rows
from zeroshot.engine.device import Device, Download
from zeroshot.engine.device_sampler import DeviceSampler, StepKind, step_kind
from zeroshot.engine.downloaded import sampled_tokens, scored
from zeroshot.engine.prompt_forward import PromptForward
from zeroshot.engine.prompt_scorer import PromptScorer
from zeroshot.engine.runner import StepResult, not_finite
from zeroshot.engine.sampler import SampledToken, sample, up_to_first_wrong
from zeroshot.engine.scheduler import ScheduledSequence
from zeroshot.engine.seats import Seats
from zeroshot.engine.sequence import Sequence
from zeroshot.model.gpt2 import GPT2, AttentionMetadata, KVCache
from zeroshot.types import TokenLogprob

_ROWS_TOGETHER = 8
"""Up to this many rows, `MAX_STEPS` steps are also recorded as one graph. A step is so short there that the gap between
two graphs, and the copy of its tokens, would be a good part of it."""


@dataclass(frozen=True, slots=True)
class Flight:
    """Decode steps that were launched and not looked at yet."""

    starts: dict[Sequence, int]
    """The position at which the device has begun with each sequence."""
    rows: dict[Sequence, int]
    downloads: list[Download]
    """One after the other, of one step or several: [num_steps, num_rows, ...] each."""


Landing = Callable[[], StepResult]
"""Waits for what was launched, and gives its part of the step's result."""


class CudaRunner:
    def __init__(
        self, model: GPT2, kv_cache: KVCache, device: Device, *, max_rows: int, max_prompt_tokens: int
    ) -> None:
        """max_rows: of the largest decode step; a sequence has one, or one for its newest token and each guess.

        max_prompt_tokens: of the largest step of prompts, and of what the host draws.
        """
        self.model = model
        self.kv_cache = kv_cache
        self.block_size = kv_cache.key.shape[2]
        config = model.config
        self._device = device
        self._layout = Layout(self.block_size, config.n_positions, config.vocab_size, config.eos_token_id)
        self._buckets = decode_buckets(max_rows)
        self._state = DecodeState(self._buckets[-1], self._layout, device)
        self._seats = Seats(self._state, self._buckets[-1], self._layout)
        self._sampler = DeviceSampler(model, self._state)
        self._scorer = PromptScorer(model, device)
        self._ahead: Flight | None = None
        # A reference may read what lies past a context, where a step ahead of the host has left something.
        self._runs_ahead = model.backend.uses_kernels_only
        self._prompts = PromptForward(
            model, kv_cache, self._layout, device, max_tokens=max_prompt_tokens, max_seqs=self._buckets[-1]
        )
        if device.compiles:
            self._compile_draw()
        self._steps = self._record_steps()

    @torch.inference_mode()
    def execute(self, scheduled: list[ScheduledSequence], *, steps_ahead: int) -> StepResult:
        try:
            return self._execute(scheduled, steps_ahead if self._runs_ahead else 0)
        except BaseException:
            self._ahead = None  # what the device has done is unknown: rows are written anew
            self._seats.keep_only(set())
            raise

    def _execute(self, scheduled: list[ScheduledSequence], steps_ahead: int) -> StepResult:
        if scheduled[0].guessed:
            return self._check_guess(*scheduled)
        hosted = [item for item in scheduled if item.sequence.needs_host]
        scheduled = [item for item in scheduled if not item.sequence.needs_host]
        decodes = [item.sequence for item in scheduled if item.sequence.is_decoding]
        prefills = [item for item in scheduled if not item.sequence.is_decoding]
        drawing = [item.sequence for item in prefills if item.needs_sample]
        flight = self._take_ahead(decodes)
        self._seats.keep_only({*decodes, *drawing})
        if flight is None and decodes:
            self._seat(decodes)
            flight = self._launch(decodes, self._num_steps(decodes, steps_ahead))
        landings: list[Landing] = [] if flight is None else [partial(_landed, flight, decodes)]
        if prefills:
            landings.append(self._launch_prefill(prefills, drawing))
        if hosted:
            landings.append(self._launch_for_host(hosted))
        self._ahead = self._launch_ahead(decodes + drawing, steps_ahead)
        # From here on the host waits, for what was launched before the step ahead.
        return StepResult.joined(land() for land in landings)

    def _take_ahead(self, decodes: list[Sequence]) -> Flight | None:
        """The step that is on its way, if it is the one that the host wants for all of these sequences."""
        flight, self._ahead = self._ahead, None
        if flight and decodes and all(flight.starts.get(s) == s.num_tokens - 1 for s in decodes):
            return flight
        return None

    def _seat(self, decodes: list[Sequence]) -> None:
        """Rows that match the host; moved together if so few are left that a smaller graph would do."""
        if self._bucket(self._seats.num_rows_in_use) > self._bucket(len(decodes)):
            self._seats.keep_only(set())
        self._seats.give(decodes)

    def _launch_ahead(self, sequences: list[Sequence], steps_ahead: int) -> Flight | None:
        going_on = [sequence for sequence in sequences if self._seats[sequence].has_more]
        must_ask = any(seat.position >= seat.holds_until for seat in map(self._seats.__getitem__, going_on))
        must_move = self._bucket(self._seats.num_rows_in_use) > self._bucket(len(going_on))
        if steps_ahead == 0 or not going_on or must_ask or must_move:
            return None
        return self._launch(going_on, self._num_steps(going_on, steps_ahead))

    def _check_guess(self, item: ScheduledSequence) -> StepResult:
        """One step, a row for the newest token and for each guess: as if each were the newest of a sequence so long.

        All rows' keys and values are in the cache before attention runs, so each sees those before it, as in decoding
        one by one. The step ahead is given up, if there is one: what it writes is the newest token's key and value.
        """
        tokens, guessed = item.sequence.token_ids, item.guessed
        rows = [replace(item.sequence, token_ids=[*tokens, *guessed[:n]]) for n in range(1 + len(guessed))]
        self._ahead = None
        self._seats.keep_only(set())
        self._seats.give(rows)
        drawn = [token for _, token in _landed(self._launch(rows, num_steps=1), rows).sampled]
        return StepResult([(item.sequence, token) for token in up_to_first_wrong(drawn, guessed)], [], [])

    def _launch(self, sequences: list[Sequence], num_steps: int) -> Flight:
        """Decode steps for all rows in use; `sequences` are those whose tokens count."""
        seats = {sequence: self._seats[sequence] for sequence in sequences}
        num_rows, kind = self._seats.num_rows_in_use, step_kind(sequences)
        bucket = self._bucket(num_rows)
        together = num_steps if (bucket, kind, num_steps) in self._steps else 1
        steps = self._steps[bucket, kind, together]
        starts = {sequence: seat.position for sequence, seat in seats.items()}
        downloads = []
        self._seats.write()
        for _ in range(num_steps // together):
            steps()
            downloads.append(self._device.download(self._drawn(slice(0, num_rows), kind, together)))
        self._seats.advance(sequences, num_steps)
        return Flight(starts, {sequence: seat.row for sequence, seat in seats.items()}, downloads)

    def _num_steps(self, sequences: list[Sequence], steps_ahead: int) -> int:
        """As many as some sequence can use, up to where one of them needs the host."""
        seats = [self._seats[sequence] for sequence in sequences]
        most_left = max(seat.limit - seat.position for seat in seats)
        until_asked = min(seat.holds_until - seat.position for seat in seats)
        return max(1, min(MAX_STEPS, steps_ahead, most_left, until_asked))

    def _launch_prefill(self, prefills: list[ScheduledSequence], drawing: list[Sequence]) -> Landing:
        batch = build_batch(prefills, self.block_size, torch.device("cpu"))
        self._seats.give(drawing)
        hidden = self._prompts(batch)
        draws: Download | None = None
        if batch.sampled:
            rows = self._device.upload(np.array([self._seats[sequence].row for sequence in batch.sampled], np.int64))
            kind = step_kind(batch.sampled)
            self._seats.write()
            self._sampler.draw(hidden[self._upload(batch.sampled_rows)], rows, kind)
            draws = self._device.download(self._drawn(rows, kind))
            self._seats.advance(batch.sampled, 1)
        last = hidden[self._upload(batch.last_rows)]
        scores = self._launch_scores(hidden, batch)
        last_is_finite = self._device.download([last.sum(-1).isfinite()])

        def land() -> StepResult:
            sampled: list[tuple[Sequence, SampledToken]] = []
            if draws is not None:
                arrays = [array[0] for array in draws()]
                tokens = sampled_tokens(arrays, batch.sampled, range(len(batch.sampled)))
                sampled += zip(batch.sampled, tokens, strict=True)
            (are_finite,) = last_is_finite()
            return StepResult(
                sampled=sampled,
                prompt_logprobs=scores(),
                not_finite=not_finite(batch.sequences, are_finite.tolist()),
            )

        return land

    def _launch_for_host(self, hosted: list[ScheduledSequence]) -> Landing:
        """A step of those whose tokens, or a beam's candidates, are found on the host."""
        batch = build_batch(hosted, self.block_size, torch.device("cpu"))
        hidden = self._prompts(batch)
        is_finite = hidden[self._upload(batch.last_rows)].sum(-1).isfinite()
        logits = self.model.compute_logits(hidden[self._upload(batch.sampled_rows)])
        download = self._device.download([is_finite, logits])
        scores = self._launch_scores(hidden, batch)

        def land() -> StepResult:
            finite, rows = download()
            tokens = sample(torch.from_numpy(rows), batch.sampled, self.model.config.eos_token_id)
            sampled = list(zip(batch.sampled, tokens, strict=True))
            return StepResult(sampled, scores(), not_finite(batch.sequences, finite.tolist()))

        return land

    def _launch_scores(
        self, hidden: Tensor, batch: Batch
    ) -> Callable[[], list[tuple[Sequence, list[TokenLogprob | None]]]]:
        """Of the batch's prompt tokens. What this returns waits for them, and gives them as a `StepResult` has them."""
        downloads = [(scores.sequence, self._scorer.launch(hidden, scores)) for scores in batch.prompt_scores]
        return lambda: [(sequence, scored(sequence, download())) for sequence, download in downloads]

    @torch.inference_mode()
    def _compile_draw(self) -> None:
        """Compiles the draw for rows given by number, with rows that belong to no sequence.

        One row and several are other kernels, which recorded steps may start early: those are others again.
        """
        for num_rows in {1, min(2, self._buckets[-1])}:
            hidden = torch.zeros((num_rows, self.model.config.n_embd), dtype=self.model.dtype, device=self.model.device)
            self._sampler.draw(hidden, self._device.upload(np.arange(num_rows)), StepKind.PLAIN)

    def _drawn(self, rows: Rows, kind: StepKind, num_steps: int = 1) -> list[Tensor]:
        """[num_steps, num_rows, ...] each."""
        state = self._state
        left = [state.drawn, state.logprobs, state.logprob_ids]
        if kind in (StepKind.PLAIN, StepKind.FILTERED):
            left = left[:1]
        return [tensor[:num_steps, rows] for tensor in left]

    def _upload(self, tensor: Tensor) -> Tensor:
        return self._device.upload(tensor.numpy())

    def _bucket(self, num_rows: int) -> int:
        return next(bucket for bucket in self._buckets if bucket >= num_rows)

    @torch.inference_mode()
    def _record_steps(self) -> dict[tuple[int, StepKind, int], Callable[[], None]]:
        """For a number of rows, a kind, and how many steps. The largest first: the smaller ones find its memory."""
        todo = list(itertools.product(reversed(self._buckets), StepKind, [1]))
        if self._runs_ahead:
            few = [num_rows for num_rows in self._buckets if num_rows <= _ROWS_TOGETHER]
            kinds = [kind for kind in StepKind if kind is not StepKind.MASKED]  # that one needs the host at each step
            todo += itertools.product(reversed(few), kinds, [MAX_STEPS])
        with Progress(console=Console(stderr=True), transient=True) as progress:
            return {
                step: self._device.record(partial(self._decode, *step))
                for step in progress.track(todo, description="recording decode steps")
            }

    def _decode(self, num_rows: int, kind: StepKind, num_steps: int) -> None:
        """A token or more for each of the first rows. Reads and writes nothing but the state and the KV cache."""
        for step in range(num_steps):
            self._decode_once(slice(0, num_rows), kind, step)

    def _decode_once(self, rows: slice, kind: StepKind, step: int) -> None:
        state = self._state
        attention = AttentionMetadata(
            slot_mapping=state.slots[rows],
            block_tables=state.block_tables[rows],
            context_lens=state.context_lens[rows],
            query_lens=state.context_lens[rows],  # not read: every sequence is a decode
            num_decodes=rows.stop,
        )
        hidden = self.model.decode(state.token_ids[rows], state.positions[rows], self.kv_cache, attention)
        self._sampler.draw(hidden, rows, kind, step)


def decode_buckets(max_rows: int) -> list[int]:
    """Numbers of rows that a graph is recorded for: fine steps where a step's time still depends on them."""
    sizes = [1, 2, 4, 8, *range(16, 64, 8), *range(64, 256, 32), *range(256, max_rows + 64, 64)]
    return [size for size in sizes if size < max_rows] + [max_rows]


def _landed(flight: Flight, decodes: list[Sequence]) -> StepResult:
    """What was drawn for each sequence, step after step. Past its limit a row draws for nobody."""
    sampled: list[tuple[Sequence, SampledToken]] = []
    steps = (arrays for download in flight.downloads for arrays in zip(*download(), strict=True))
    for step, arrays in enumerate(steps):
        drawing = [s for s in decodes if flight.starts[s] + step < last_position(s)]
        rows = [flight.rows[sequence] for sequence in drawing]
        sampled += zip(drawing, sampled_tokens(arrays, drawing, rows), strict=True)
    return StepResult(sampled, [], [])
