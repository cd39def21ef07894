"""Decides which tokens run in the next step. Plain Python; knows no tensors.

Running sequences come first, in order of admission: one token each while decoding, as much of the prompt as the
step's token budget leaves while prefilling (chunked prefill, Agrawal et al. 2023). While streams
run, prompts get less of it, because every stream waits for the whole step. What is left admits waiting sequences, first
come first served. Admission reserves all blocks a sequence can need, so what runs finishes.

A step is also kept short enough that nobody takes a slow engine for one that hangs (`observe`).
"""

from collections import deque
from dataclasses import dataclass

from zeroshot.engine.block_manager import BlockManager
from zeroshot.engine.sequence import Sequence
from zeroshot.engine.speculative import Guessing

LONGEST_STEP_S = 5.0
"""What a step's prompts may take: a sixth of the silence after which an engine is replaced."""
_FIRST_PROMPT_TOKENS = 64
"""In a step, while it isn't known how long they take."""
_FEWEST_PROMPT_TOKENS = 16
"""However long they take: a step with fewer would read all weights for next to nothing."""


@dataclass(frozen=True, slots=True)
class ScheduledSequence:
    """`num_tokens` of the sequence run now, from `sequence.num_computed_tokens` on, and what is guessed to follow."""

    sequence: Sequence
    num_tokens: int
    guessed: tuple[int, ...] = ()
    """Only where `num_tokens` is 1."""

    @property
    def needs_sample(self) -> bool:
        """True if the step computes the newest token and another one is wanted after it."""
        sequence = self.sequence
        return (
            sequence.num_computed_tokens + self.num_tokens == sequence.num_tokens
            and sequence.num_tokens < sequence.max_num_tokens
        )


class Scheduler:
    """Raises nothing: what can't ever run is refused before it gets here (`Engine.add_request`)."""

    def __init__(
        self,
        block_manager: BlockManager,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        max_prompt_tokens_beside_decodes: int | None = None,
        guessing: Guessing | None = None,
    ) -> None:
        """max_prompt_tokens_beside_decodes: None for as many as the step has room for. guessing: None for none."""
        self.block_manager = block_manager
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.max_prompt_tokens_beside_decodes = max_prompt_tokens_beside_decodes or max_num_batched_tokens
        self.guessing = guessing
        self._max_prompt_tokens = min(_FIRST_PROMPT_TOKENS, max_num_batched_tokens)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    @property
    def may_guess(self) -> bool:
        """Where few streams run, and nobody waits for the step to end."""
        return self.guessing is not None and 0 < len(self.running) <= self.guessing.max_seqs and not self.waiting

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def schedule(self) -> list[ScheduledSequence]:
        """The next step: decoding sequences first, then prefills. Empty only if there is no work."""
        if self.guessing and self.may_guess and all(sequence.is_decoding for sequence in self.running):
            return self._decodes_and_guesses(self.guessing)
        budget = self.max_num_batched_tokens
        decodes: list[ScheduledSequence] = []
        prefills: list[ScheduledSequence] = []
        for sequence in self.running:
            if sequence.is_decoding and budget:
                decodes.append(ScheduledSequence(sequence, 1))
                budget -= 1
        if decodes:
            budget = min(budget, self.max_prompt_tokens_beside_decodes)
        budget = min(budget, self._max_prompt_tokens)
        for sequence in self.running:
            if not sequence.is_decoding and budget:
                prefills.append(ScheduledSequence(sequence, min(budget, sequence.num_uncomputed_tokens)))
                budget -= prefills[-1].num_tokens
        prefills += self._admit(budget)
        return decodes + prefills

    def observe(self, num_prompt_tokens: int, seconds: float) -> None:
        """Take in how long a step took that ran so many: the next one gets what would be read in LONGEST_STEP_S.

        That is all that there is room for, unless the model is large for this machine. A step of few tokens spends most
        of its time on reading weights, and so says nothing against many.
        """
        if num_prompt_tokens:
            within_time = int(num_prompt_tokens * LONGEST_STEP_S / max(seconds, 1e-3))
            if seconds > LONGEST_STEP_S or within_time > self._max_prompt_tokens:
                self._max_prompt_tokens = max(_FEWEST_PROMPT_TOKENS, min(within_time, self.max_num_batched_tokens))

    def _decodes_and_guesses(self, guessing: Guessing) -> list[ScheduledSequence]:
        most = min(guessing.max_rows, self.max_num_batched_tokens) // len(self.running) - 1
        return [ScheduledSequence(sequence, 1, guessing.guess(sequence, most)) for sequence in self.running]

    def _admit(self, budget: int) -> list[ScheduledSequence]:
        admitted: list[ScheduledSequence] = []
        skipped: list[Sequence] = []
        num_running = sum(sequence.width for sequence in self.running)
        while self.waiting and budget and num_running < self.max_num_seqs:
            sequence = self.waiting.popleft()
            if self.block_manager.is_prefix_in_progress(sequence):
                skipped.append(sequence)  # a step or two later its prefix is there for nothing
                continue
            has_room = num_running + sequence.width <= self.max_num_seqs
            if not has_room or not self.block_manager.can_allocate(sequence):
                skipped.append(sequence)
                break  # later ones must not overtake it, or a large request would starve
            self.block_manager.allocate(sequence)
            self.running.append(sequence)
            num_running += sequence.width
            admitted.append(ScheduledSequence(sequence, min(budget, sequence.num_uncomputed_tokens)))
            budget -= admitted[-1].num_tokens
        self.waiting.extendleft(reversed(skipped))
        return admitted

    def fork(self, sequence: Sequence, children: list[Sequence]) -> None:
        """Run the children of a running sequence too, in the room that was kept for them."""
        self.block_manager.fork(sequence, children)
        self.running += children

    def remove(self, sequence: Sequence) -> None:
        """Forget a finished or aborted sequence and give its blocks back."""
        if sequence in self.running:
            self.running.remove(sequence)
            self.block_manager.free(sequence)
        else:
            self.waiting.remove(sequence)
