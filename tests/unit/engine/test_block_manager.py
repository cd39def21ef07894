"""KV blocks: who owns them, which prefixes are found again, which are evicted first."""

import pytest

from zeroshot.engine.block_manager import BlockManager, hash_block

BLOCK_SIZE = 4


@pytest.fixture
def blocks():
    return BlockManager(num_blocks=8, block_size=BLOCK_SIZE)


def compute(blocks, sequence, num_tokens=None):
    """As if the sequence's tokens had run: all of them, or so many more."""
    sequence.num_computed_tokens = (
        sequence.num_tokens if num_tokens is None else sequence.num_computed_tokens + num_tokens
    )
    blocks.commit(sequence)


def serve(blocks, sequence):
    """Admit, compute and free: afterwards only the cache remembers."""
    blocks.allocate(sequence)
    table = list(sequence.block_table)
    compute(blocks, sequence)
    blocks.free(sequence)
    return table


def test_all_blocks_are_reserved_at_admission(blocks, sequence_of):
    for num_prompt, max_tokens, expected in [(1, 0, 1), (4, 0, 1), (4, 1, 2), (5, 11, 4), (9, 23, 8)]:
        sequence = sequence_of([0] * num_prompt, max_tokens)
        blocks.allocate(sequence)
        assert len(set(sequence.block_table)) == len(sequence.block_table) == expected
        assert blocks.num_free_blocks == 8 - expected
        blocks.free(sequence)
        assert sequence.block_table == []
        assert blocks.num_free_blocks == 8


def test_room(blocks, sequence_of):
    first = sequence_of(range(20), 0)
    blocks.allocate(first)
    assert blocks.can_allocate(sequence_of(range(100, 112)))
    assert not blocks.can_allocate(sequence_of(range(100, 113)))


def test_a_shared_block_needs_no_room_but_a_revived_one_does(blocks, sequence_of):
    prompt = list(range(16))
    first = sequence_of(prompt)
    blocks.allocate(first)
    compute(blocks, first)
    other = sequence_of(range(50, 66))
    blocks.allocate(other)
    assert blocks.num_free_blocks == 0
    assert not blocks.can_allocate(sequence_of([*prompt, 99]))  # shares four, needs one
    blocks.free(other)
    assert blocks.can_allocate(sequence_of([*prompt, 99], 12))
    blocks.free(first)
    assert blocks.can_allocate(sequence_of([*prompt, 99], 15))  # 8 blocks, 4 of them cached and free
    assert not blocks.can_allocate(sequence_of([*prompt, 99], 16))


def test_a_prefix_is_found_again(blocks, sequence_of):
    table = serve(blocks, sequence_of(range(14)))
    again = sequence_of([*range(14), 99])
    blocks.allocate(again)
    assert again.block_table[:3] == table[:3]
    assert again.num_cached_tokens == again.num_computed_tokens == 12
    assert again.num_committed_blocks == 3


def test_the_last_prompt_token_is_never_cached(blocks, sequence_of):
    serve(blocks, sequence_of(range(8)))
    again = sequence_of(range(8))
    blocks.allocate(again)
    assert again.num_cached_tokens == 4


@pytest.mark.parametrize(("start", "expected"), [(0, 0), (1, 0), (4, 0), (5, 4), (9, 8), (12, 8), (99, 8)])
def test_a_prompt_position_that_is_scored_is_never_cached(blocks, sequence_of, start, expected):
    serve(blocks, sequence_of(range(12)))
    again = sequence_of(range(12), prompt_logprobs=0, prompt_logprobs_start=start)
    blocks.allocate(again)
    assert again.num_cached_tokens == expected


def test_generated_tokens_are_cached_too(blocks, sequence_of):
    sequence = sequence_of(range(6), 6)
    blocks.allocate(sequence)
    compute(blocks, sequence)
    sequence.token_ids += [50, 51, 52]
    compute(blocks, sequence)
    blocks.free(sequence)
    longer = sequence_of([*range(6), 50, 51, 52])
    blocks.allocate(longer)
    assert longer.num_cached_tokens == 8


def test_nothing_is_shared_before_it_is_computed(blocks, sequence_of):
    first = sequence_of(range(12))
    blocks.allocate(first)
    compute(blocks, first, 6)
    second = sequence_of(range(12))
    blocks.allocate(second)
    assert second.num_cached_tokens == 4
    assert not set(second.block_table[1:]) & set(first.block_table)


def test_equal_blocks_under_different_parents_do_not_mix(blocks, sequence_of):
    tail = [7, 7, 7, 7]
    serve(blocks, sequence_of([1, 1, 1, 1, *tail, 0]))
    other = sequence_of([2, 2, 2, 2, *tail, 0])
    blocks.allocate(other)
    assert other.num_cached_tokens == 0
    blocks.free(other)
    alone = sequence_of([*tail, 0])
    blocks.allocate(alone)
    assert alone.num_cached_tokens == 0


def test_hashes_chain():
    one, two = hash_block(b"", [1, 2]), hash_block(b"", [2, 1])
    assert one == hash_block(b"", [1, 2])
    assert len({one, two, hash_block(one, [1, 2]), hash_block(two, [1, 2]), hash_block(b"", [1, 2, 1, 2])}) == 5


def test_eviction_is_least_recently_freed_and_tails_first(sequence_of):
    blocks = BlockManager(num_blocks=6, block_size=BLOCK_SIZE)
    old, new = list(range(100, 109)), list(range(200, 209))
    serve(blocks, sequence_of(old))  # two full blocks and a tail that is never cached
    serve(blocks, sequence_of(new))
    left = []
    for num_blocks in range(1, 7):
        taker = sequence_of(range(300, 300 + num_blocks * BLOCK_SIZE))
        blocks.allocate(taker)
        left.append((_num_cached(blocks, sequence_of(old)), _num_cached(blocks, sequence_of(new))))
        blocks.free(taker)
    assert left == [(8, 8), (8, 8), (4, 8), (0, 8), (0, 4), (0, 0)]
    assert blocks.num_free_blocks == 6


def test_blocks_that_hold_no_prefix_are_taken_first(sequence_of):
    """Most requests reserve room for max_tokens and stop long before: that room must not cost others their prefix."""
    blocks = BlockManager(num_blocks=8, block_size=BLOCK_SIZE)
    kept = [1, 1, 1, 1, 0]
    serve(blocks, sequence_of(kept))
    for first in range(10, 20):
        serve(blocks, sequence_of([first], 20))
    assert _num_cached(blocks, sequence_of(kept)) == 4


def test_using_a_prefix_makes_it_recent(sequence_of):
    blocks = BlockManager(num_blocks=4, block_size=BLOCK_SIZE)
    old, new = [1, 1, 1, 1, 0], [2, 2, 2, 2, 0]
    serve(blocks, sequence_of(old))
    serve(blocks, sequence_of(new))
    serve(blocks, sequence_of(old))
    blocks.allocate(sequence_of(range(50, 60)))
    assert _num_cached(blocks, sequence_of(old)) == 4
    assert _num_cached(blocks, sequence_of(new)) == 0


def _num_cached(blocks, sequence):
    """What admission would find, without admitting."""
    return blocks._num_cached_blocks(blocks._prompt_hashes(sequence)) * BLOCK_SIZE


def test_two_that_compute_the_same_at_once_keep_their_own_blocks(blocks, sequence_of):
    first, second = sequence_of(range(9)), sequence_of(range(9))
    blocks.allocate(first)
    blocks.allocate(second)
    assert not set(first.block_table) & set(second.block_table)
    compute(blocks, first)
    compute(blocks, second)
    third = sequence_of(range(9))
    assert blocks.can_allocate(third)
    blocks.allocate(third)
    assert third.block_table[:2] == first.block_table[:2]
    for sequence in (first, second, third):
        blocks.free(sequence)
    assert blocks.num_free_blocks == 8


def test_prefix_in_progress(blocks, sequence_of):
    first, second = sequence_of(range(12)), sequence_of(range(12))
    assert not blocks.is_prefix_in_progress(second)
    blocks.allocate(first)
    assert blocks.is_prefix_in_progress(second)
    assert not blocks.is_prefix_in_progress(sequence_of(range(4)))  # its only block holds its last token
    assert not blocks.is_prefix_in_progress(sequence_of(range(50, 62)))
    compute(blocks, first, 4)
    assert blocks.is_prefix_in_progress(second)
    compute(blocks, first, 4)
    assert not blocks.is_prefix_in_progress(second)


def test_who_frees_what_it_was_computing_no_longer_holds_others_up(blocks, sequence_of):
    first, second = sequence_of(range(12)), sequence_of(range(12))
    blocks.allocate(first)
    compute(blocks, first, 4)
    assert blocks.is_prefix_in_progress(second)
    blocks.free(first)
    assert not blocks.is_prefix_in_progress(second)
    assert blocks._in_progress == {}


def test_forgotten_blocks_are_not_found(blocks, sequence_of):
    first = sequence_of(range(9))
    blocks.allocate(first)
    compute(blocks, first)
    second = sequence_of([*range(8), 99])
    blocks.allocate(second)
    assert second.num_cached_tokens == 8
    own = blocks.forget(second)
    assert own == second.block_table[2:]
    blocks.free(second)
    assert _num_cached(blocks, sequence_of(range(12))) == 0
    blocks.free(first)
    assert blocks.num_free_blocks == 8
    assert blocks._cached == {}


def test_a_beam_that_goes_on_from_another_is_private_from_where_that_one_is(blocks, sequence_of):
    """One beam has written what a pinned prompt says, another has not: its own next block is nobody else's either."""
    pinned = sequence_of(range(8))
    blocks.allocate(pinned)
    compute(blocks, pinned)
    blocks.pin(pinned)
    blocks.free(pinned)
    beams = [sequence_of(range(4), 8), sequence_of(range(4), 8)]
    for beam, written in zip(beams, ([4, 5, 6, 7], [9, 9, 9, 9]), strict=True):
        beam.cache_salt = b"a" * 16
        blocks.allocate(beam)
        beam.token_ids += written
        compute(blocks, beam)
    blocks.regroup(beams, [0, 0])
    secret = [50, 51, 52, 53]
    beams[1].token_ids = [*range(8), *secret]
    compute(blocks, beams[1])
    for beam in beams:
        blocks.free(beam)
    stranger = sequence_of([*range(8), *secret, 1])
    blocks.allocate(stranger)
    assert stranger.num_cached_tokens == 8
