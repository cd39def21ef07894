"""Which tokens run next: decodes before prefills, first come first served, within the budget."""

import pytest

from zeroshot.engine.block_manager import BlockManager
from zeroshot.engine.scheduler import Scheduler
from zeroshot.engine.speculative import Guessing


@pytest.fixture
def scheduler_of():
    def make(*, num_blocks=64, block_size=4, max_num_seqs=8, max_num_batched_tokens=16, **options):
        blocks = BlockManager(num_blocks, block_size)
        return Scheduler(blocks, max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens, **options)

    return make


def run(scheduler):
    """One step, as the engine does it; every sampled token is a 1. Returns [(sequence, num_tokens)]."""
    scheduled = scheduler.schedule()
    for item in scheduled:
        needs_sample = item.needs_sample
        item.sequence.num_computed_tokens += item.num_tokens
        if needs_sample:
            item.sequence.token_ids.append(1)
        scheduler.block_manager.commit(item.sequence)
        if item.sequence.num_tokens == item.sequence.max_num_tokens and (
            needs_sample or item.sequence.num_uncomputed_tokens == 0
        ):
            scheduler.remove(item.sequence)
    return [(item.sequence, item.num_tokens) for item in scheduled]


def test_no_work(scheduler_of):
    scheduler = scheduler_of()
    assert not scheduler.has_work
    assert scheduler.schedule() == []


def test_a_prompt_then_one_token_a_step(scheduler_of, sequence_of):
    scheduler, sequence = scheduler_of(), sequence_of(range(5), 3)
    scheduler.add(sequence)
    assert [run(scheduler) for _ in range(3)] == [[(sequence, 5)], [(sequence, 1)], [(sequence, 1)]]
    assert sequence.num_output_tokens == 3
    assert not scheduler.has_work


def test_a_long_prompt_in_chunks_and_no_sample_before_its_end(scheduler_of, sequence_of):
    scheduler, sequence = scheduler_of(), sequence_of(range(40), 1)
    scheduler.add(sequence)
    samples = []
    for _ in range(3):
        (item,) = scheduler.schedule()
        samples.append((item.num_tokens, item.needs_sample))
        sequence.num_computed_tokens += item.num_tokens
    assert samples == [(16, False), (16, False), (8, True)]


def test_max_tokens_zero_never_samples(scheduler_of, sequence_of):
    scheduler = scheduler_of()
    scheduler.add(sequence_of(range(3), 0))
    assert [item.needs_sample for item in scheduler.schedule()] == [False]


def test_decodes_come_first_and_are_never_left_out(scheduler_of, sequence_of):
    scheduler = scheduler_of(max_num_batched_tokens=8)
    talking = [sequence_of([i], 20) for i in range(4)]
    for sequence in talking:
        scheduler.add(sequence)
    run(scheduler)
    late = sequence_of(range(100, 120), 5)
    scheduler.add(late)
    for _ in range(5):
        assert run(scheduler) == [*((sequence, 1) for sequence in talking), (late, 4)]
    assert run(scheduler) == [(sequence, 1) for sequence in [*talking, late]]


def test_a_prompt_gets_less_of_a_step_while_others_talk(scheduler_of, sequence_of):
    scheduler = scheduler_of(max_num_batched_tokens=16, max_prompt_tokens_beside_decodes=6)
    alone, talking, late = sequence_of(range(30), 1), sequence_of([50], 4), sequence_of(range(100, 120), 1)
    scheduler.add(alone)
    assert run(scheduler) == [(alone, 16)]
    assert run(scheduler) == [(alone, 14)]
    scheduler.add(talking)
    run(scheduler)
    scheduler.add(late)
    assert [run(scheduler) for _ in range(3)] == [[(talking, 1), (late, 6)]] * 3
    assert run(scheduler) == [(late, 2)]


def test_a_one_token_prompt_is_a_prefill(scheduler_of, sequence_of):
    scheduler = scheduler_of()
    first, second = sequence_of(range(3), 5), sequence_of([9], 5)
    scheduler.add(first)
    run(scheduler)
    scheduler.add(second)
    assert not second.is_decoding
    assert run(scheduler) == [(first, 1), (second, 1)]
    assert second.is_decoding


def test_what_is_left_of_the_budget_admits_the_next(scheduler_of, sequence_of):
    scheduler = scheduler_of(max_num_batched_tokens=16)
    a, b, c = sequence_of(range(10), 1), sequence_of(range(100, 110), 1), sequence_of(range(200, 203), 1)
    for sequence in (a, b, c):
        scheduler.add(sequence)
    assert run(scheduler) == [(a, 10), (b, 6)]
    assert run(scheduler) == [(b, 4), (c, 3)]


def test_max_num_seqs(scheduler_of, sequence_of):
    scheduler = scheduler_of(max_num_seqs=2)
    sequences = [sequence_of([i], 3) for i in range(3)]
    for sequence in sequences:
        scheduler.add(sequence)
    assert [sequence for sequence, _ in run(scheduler)] == sequences[:2]
    run(scheduler)
    run(scheduler)
    assert [sequence for sequence, _ in run(scheduler)] == sequences[2:]


def test_a_small_request_does_not_overtake_a_large_one_that_waits_for_room(scheduler_of, sequence_of):
    scheduler = scheduler_of(num_blocks=8, block_size=4)
    first, large, small = sequence_of([1], 12), sequence_of(range(100, 110), 20), sequence_of([2], 1)
    for sequence in (first, large, small):
        scheduler.add(sequence)
    for _ in range(12):
        assert [sequence for sequence, _ in run(scheduler)] == [first]
        assert list(scheduler.waiting) == [large, small]
    assert [sequence for sequence, _ in run(scheduler)] == [large]


def test_siblings_wait_for_the_prefix_and_get_it(scheduler_of, sequence_of):
    scheduler = scheduler_of()
    prompt = list(range(10))
    first, second, third = (sequence_of(prompt, 4) for _ in range(3))
    for sequence in (first, second, third):
        scheduler.add(sequence)
    assert run(scheduler) == [(first, 10)]
    assert run(scheduler) == [(first, 1), (second, 2), (third, 2)]
    assert second.num_cached_tokens == third.num_cached_tokens == 8
    assert first.block_table[:2] == second.block_table[:2] == third.block_table[:2]
    assert len({sequence.block_table[2] for sequence in (first, second, third)}) == 3


def test_siblings_of_a_chunked_prompt_wait_for_all_of_it(scheduler_of, sequence_of):
    scheduler = scheduler_of(max_num_batched_tokens=8)
    first, second = sequence_of(range(30), 2), sequence_of(range(30), 2)
    scheduler.add(first)
    scheduler.add(second)
    for num_tokens in (8, 8, 8, 6):
        assert run(scheduler) == [(first, num_tokens)]
    assert run(scheduler) == [(first, 1), (second, 2)]
    assert second.num_cached_tokens == 28


def test_others_may_overtake_a_deferred_sibling(scheduler_of, sequence_of):
    scheduler = scheduler_of()
    first, sibling, other = sequence_of(range(10), 4), sequence_of(range(10), 4), sequence_of([50], 4)
    for sequence in (first, sibling, other):
        scheduler.add(sequence)
    assert [sequence for sequence, _ in run(scheduler)] == [first, other]
    assert list(scheduler.waiting) == [sibling]


def test_removing_a_waiting_and_a_running_sequence(scheduler_of, sequence_of):
    scheduler = scheduler_of(num_blocks=4)
    running, waiting = sequence_of(range(10), 4), sequence_of(range(50, 60), 4)
    scheduler.add(running)
    scheduler.add(waiting)
    run(scheduler)
    scheduler.remove(waiting)
    assert list(scheduler.waiting) == []
    scheduler.remove(running)
    assert scheduler.block_manager.num_free_blocks == 4
    assert not scheduler.has_work


class TestGuesses:
    @pytest.fixture
    def asked(self):
        return []

    @pytest.fixture
    def guessing(self, asked):
        def guess(sequence, most):
            """As many as it may; `asked` knows for which sequences."""
            asked.append((sequence, most))
            return (7,) * most

        return Guessing(guess, max_rows=8, max_seqs=3)

    def decoding(self, scheduler, sequence_of, count, max_tokens=20):
        sequences = [sequence_of(range(5), max_tokens) for _ in range(count)]
        for sequence in sequences:
            scheduler.add(sequence)
        while not all(sequence.is_decoding for sequence in sequences):
            run(scheduler)
        return sequences

    @pytest.mark.parametrize(("num_seqs", "each"), [(1, 7), (2, 3), (3, 1)])
    def test_few_streams_share_a_steps_rows(self, scheduler_of, sequence_of, guessing, asked, num_seqs, each):
        scheduler = scheduler_of(guessing=guessing)
        sequences = self.decoding(scheduler, sequence_of, num_seqs)
        scheduled = scheduler.schedule()
        assert [(item.sequence, item.num_tokens, item.guessed) for item in scheduled] == [
            (sequence, 1, (7,) * each) for sequence in sequences
        ]
        assert asked == [(sequence, each) for sequence in sequences]

    def test_more_streams_are_not_guessed_for(self, scheduler_of, sequence_of, guessing, asked):
        scheduler = scheduler_of(guessing=guessing)
        self.decoding(scheduler, sequence_of, 4)
        assert not scheduler.may_guess
        assert {item.guessed for item in scheduler.schedule()} == {()}
        assert asked == []

    def test_nor_is_one_beside_a_prompt_or_a_request_that_waits(self, scheduler_of, sequence_of, guessing, asked):
        scheduler = scheduler_of(guessing=guessing)
        (stream,) = self.decoding(scheduler, sequence_of, 1)
        prompt = sequence_of(range(40), 1)
        scheduler.add(prompt)
        assert not scheduler.may_guess
        assert run(scheduler) == [(stream, 1), (prompt, 15)]
        assert run(scheduler) == [(stream, 1), (prompt, 15)]
        assert asked == []

    def test_a_step_holds_no_more_than_its_budget(self, scheduler_of, sequence_of, guessing):
        scheduler = scheduler_of(guessing=guessing, max_num_batched_tokens=5, max_num_seqs=4)
        self.decoding(scheduler, sequence_of, 2)
        assert [len(item.guessed) for item in scheduler.schedule()] == [1, 1]

    def test_without_work_there_is_nothing_to_guess(self, scheduler_of, guessing):
        scheduler = scheduler_of(guessing=guessing)
        assert not scheduler.may_guess
        assert scheduler.schedule() == []


def prompt_tokens_by_step(scheduler, sequence, seconds_of):
    """How a prompt is cut where a step of some tokens takes so long."""
    scheduler.add(sequence)
    cut = []
    while sequence.num_uncomputed_tokens:
        (item,) = scheduler.schedule()
        sequence.num_computed_tokens += item.num_tokens
        scheduler.observe(item.num_tokens, seconds_of(item.num_tokens))
        cut.append(item.num_tokens)
    scheduler.remove(sequence)
    return cut


def test_prompts_get_no_more_of_a_step_than_takes_five_seconds(scheduler_of, sequence_of):
    """An engine is taken for one that hangs after 30 s without a word."""
    scheduler = scheduler_of(num_blocks=1024, max_num_batched_tokens=512)

    def at(tokens_per_second):
        return prompt_tokens_by_step(scheduler, sequence_of(range(1000), 0), lambda tokens: tokens / tokens_per_second)

    assert at(1000) == [64, 512, 424]
    assert at(20) == [512, *[100] * 4, 88]  # the first one was too long, and there was no telling
    assert at(1) == [100, *[16] * 56, 4]
    assert at(1000) == [16, 512, 472]


def test_a_step_of_few_tokens_says_nothing_against_many(scheduler_of, sequence_of):
    scheduler = scheduler_of(num_blocks=1024, max_num_batched_tokens=512)
    assert prompt_tokens_by_step(scheduler, sequence_of(range(1000), 0), lambda _: 0.5) == [64, 512, 424]
    assert prompt_tokens_by_step(scheduler, sequence_of(range(1), 0), lambda _: 0.5) == [1]
    assert prompt_tokens_by_step(scheduler, sequence_of(range(1000), 0), lambda _: 0.5) == [512, 488]
