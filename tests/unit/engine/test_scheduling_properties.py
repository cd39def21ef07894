"""Scheduler and BlockManager under any order of events, with a KV cache that remembers what was written where."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zeroshot.engine.block_manager import BlockManager
from zeroshot.engine.scheduler import Scheduler
from zeroshot.engine.sequence import Sequence
from zeroshot.types import SamplingParams

NUM_BLOCKS = 12
STALE = ("stale",)

# Two token ids: most prompts begin alike.
PROMPTS = st.lists(st.integers(0, 1), min_size=1, max_size=22)


class EngineWithoutTensors(RuleBasedStateMachine):
    """The engine's bookkeeping; a slot of its KV cache holds the tokens up to the one that was written there."""

    @initialize(
        block_size=st.integers(1, 4),
        max_num_seqs=st.integers(1, 5),
        spare=st.integers(0, 8),
        beside_decodes=st.none() | st.integers(1, 8),
        enough=st.booleans(),
    )
    def start(self, block_size, max_num_seqs, spare, beside_decodes, enough):
        self.block_size, self.max_num_seqs, self.budget = block_size, max_num_seqs, max_num_seqs + spare
        self.beside_decodes = beside_decodes or self.budget
        num_blocks = NUM_BLOCKS * (4 if enough else 1)
        self.blocks = BlockManager(num_blocks, block_size)
        self.scheduler = Scheduler(
            self.blocks,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=self.budget,
            max_prompt_tokens_beside_decodes=beside_decodes,
        )
        self.kv = [[STALE] * block_size for _ in range(num_blocks)]
        self.arrivals: list[Sequence] = []

    @rule(prompt=PROMPTS, max_tokens=st.integers(0, 8), scored_from=st.none() | st.integers(1, 22), n=st.integers(1, 3))
    def add(self, prompt, max_tokens, scored_from, n):
        params = SamplingParams(
            max_tokens=max_tokens,
            prompt_logprobs=None if scored_from is None else 0,
            prompt_logprobs_start=scored_from or 1,
        )
        if self.blocks.num_blocks_for(len(prompt) + max_tokens) > self.blocks.num_blocks:
            return  # the engine's cache holds at least one full context
        for choice in range(n):
            sequence = Sequence(f"r{len(self.arrivals)}", choice, list(prompt), len(prompt), params)
            self.arrivals.append(sequence)
            self.scheduler.add(sequence)

    @rule(sampled=st.lists(st.integers(0, 1), min_size=5, max_size=5), stops=st.sets(st.integers(0, 4), max_size=1))
    def step(self, sampled, stops):
        waiting_before = list(self.scheduler.waiting)
        scheduled = self.scheduler.schedule()
        assert bool(scheduled) == bool(self.scheduler.has_work)
        self.check_schedule(scheduled, waiting_before)
        needs_sample = [item.needs_sample for item in scheduled]
        for item in scheduled:
            self.write(item.sequence, item.num_tokens)
        for item in scheduled:
            item.sequence.num_computed_tokens += item.num_tokens
        for index, item in enumerate(scheduled):
            if needs_sample[index]:
                item.sequence.token_ids.append(sampled[index])
        for sequence in list(self.scheduler.running):
            self.blocks.commit(sequence)
        for index, item in enumerate(scheduled):
            sequence = item.sequence
            is_full = needs_sample[index] and sequence.num_tokens == sequence.max_num_tokens
            if is_full or sequence.num_uncomputed_tokens == 0 or (needs_sample[index] and index in stops):
                self.end(sequence)

    def check_schedule(self, scheduled, waiting_before):
        sequences = [item.sequence for item in scheduled]
        assert len(sequences) == len({id(sequence) for sequence in sequences}) <= self.max_num_seqs
        assert all(item.num_tokens >= 1 for item in scheduled)
        assert all(item.num_tokens <= item.sequence.num_uncomputed_tokens for item in scheduled)
        num_tokens = sum(item.num_tokens for item in scheduled)
        assert num_tokens <= self.budget
        assert len(self.scheduler.running) <= self.max_num_seqs
        is_decode = [sequence.is_decoding for sequence in sequences]
        assert is_decode == sorted(is_decode, reverse=True), "a prefill before a decode"
        decoding = [sequence for sequence in self.scheduler.running if sequence.is_decoding]
        assert sequences[: len(decoding)] == decoding, "a decode was left out"
        unfinished = sum(item.num_tokens < item.sequence.num_uncomputed_tokens for item in scheduled)
        assert unfinished <= 1, "the budget is split between two prompts"
        left_for_prompts = self.budget - len(decoding)
        if decoding:
            left_for_prompts = min(left_for_prompts, self.beside_decodes)
        assert num_tokens - len(decoding) <= left_for_prompts
        assert unfinished == 0 or num_tokens - len(decoding) == left_for_prompts, "budget was left over"
        self.check_order_of_admission(waiting_before)

    def check_order_of_admission(self, waiting_before):
        still_waiting = list(self.scheduler.waiting)
        assert [s for s in waiting_before if s in still_waiting] == still_waiting, "the queue changed its order"
        admitted = [sequence for sequence in waiting_before if sequence not in still_waiting]
        assert self.scheduler.running[len(self.scheduler.running) - len(admitted) :] == admitted
        if admitted:
            last = waiting_before.index(admitted[-1])
            for sequence in waiting_before[:last]:
                assert sequence in admitted or self.blocks.is_prefix_in_progress(sequence), "overtaken"

    def write(self, sequence, num_tokens):
        """Attention reads all that came before, so it has to be there and right; then the new tokens are written."""
        for position in range(sequence.num_computed_tokens):
            assert self.slot(sequence, position) == tuple(sequence.token_ids[: position + 1])
        end = sequence.num_computed_tokens + num_tokens
        for position in range(sequence.num_computed_tokens, end):
            block_id = sequence.block_table[position // self.block_size]
            assert self.blocks._blocks[block_id].ref_count == 1, "two may write this block"
            assert self.blocks._blocks[block_id].content_hash is None, "a cached block is overwritten"
            self.kv[block_id][position % self.block_size] = tuple(sequence.token_ids[: position + 1])
        first_scored = sequence.sampling_params.prompt_logprobs_start
        if sequence.sampling_params.prompt_logprobs is not None:
            assert sequence.num_cached_tokens < max(first_scored, 1), "a position to be scored came from the cache"

    def slot(self, sequence, position):
        return self.kv[sequence.block_table[position // self.block_size]][position % self.block_size]

    def end(self, sequence):
        self.scheduler.remove(sequence)
        self.arrivals.remove(sequence)
        assert sequence.block_table == []

    @precondition(lambda self: self.arrivals)
    @rule(data=st.data())
    def abort(self, data):
        self.end(data.draw(st.sampled_from(self.arrivals)))

    @precondition(lambda self: self.scheduler.running)
    @rule(data=st.data())
    def fail(self, data):
        """NaN: nobody may read these blocks any more, except those who already share them."""
        sequence = data.draw(st.sampled_from(self.scheduler.running))
        for block_id in self.blocks.forget(sequence):
            assert self.blocks._blocks[block_id].ref_count == 1
            assert block_id in sequence.block_table
            self.kv[block_id] = [STALE] * self.block_size
        self.end(sequence)

    @invariant()
    def every_block_is_free_or_counted(self):
        tables = [sequence.block_table for sequence in self.scheduler.running]
        used: dict[int, int] = {}
        for table in tables:
            assert len(set(table)) == len(table)
            for block_id in table:
                used[block_id] = used.get(block_id, 0) + 1
        for block_id, block in enumerate(self.blocks._blocks):
            assert block.ref_count == used.get(block_id, 0)
            assert (block_id in self.blocks._free) == (block.ref_count == 0)
        assert len(used) + self.blocks.num_free_blocks == self.blocks.num_blocks
        assert all(sequence.block_table == [] for sequence in self.scheduler.waiting)

    @invariant()
    def the_cache_index_is_right(self):
        by_hash = {block.content_hash: i for i, block in enumerate(self.blocks._blocks) if block.content_hash}
        assert self.blocks._cached == by_hash
        for sequence in self.blocks._in_progress.values():
            assert any(sequence is other for other in self.scheduler.running)

    @invariant()
    def a_shared_block_is_committed(self):
        for sequence in self.scheduler.running:
            for index, block_id in enumerate(sequence.block_table):
                if self.blocks._blocks[block_id].ref_count > 1:
                    assert index < sequence.num_committed_blocks

    def teardown(self):
        """Nobody starves: everything left comes to its end within a bounded number of steps."""
        for _ in range(40 * len(getattr(self, "arrivals", ()))):
            self.step([0, 1, 0, 1, 0], set())
        if hasattr(self, "scheduler"):
            assert not self.scheduler.has_work
            assert self.arrivals == []
            assert self.blocks.num_free_blocks == self.blocks.num_blocks
            assert self.blocks._in_progress == {}


TestEngineWithoutTensors = EngineWithoutTensors.TestCase
TestEngineWithoutTensors.settings = settings(max_examples=150, stateful_step_count=40)
