"""A step of prompts, filled up to a recorded size, against the model run on just its tokens."""

import itertools
import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.cuda_runner.conftest import model_on_references
from zeroshot.engine.batch import build_batch
from zeroshot.engine.decode_record import Layout
from zeroshot.engine.device import HostDevice
from zeroshot.engine.prompt_forward import PromptForward, token_sizes
from zeroshot.engine.scheduler import ScheduledSequence
from zeroshot.engine.sequence import Sequence
from zeroshot.types import SamplingParams

BLOCK_SIZE, NUM_BLOCKS = 4, 64
CPU = torch.device("cpu")
PROMPTS = {
    "one token": [(1, 1)],
    "a size exactly": [(16, 16)],
    "with a prefix": [(23, 9)],
    "more than eight": [(5, 5), (9, 2), *[(3, 1)] * 9],
    "many tokens": [(40, 40), (33, 20), (7, 7)],
}


@pytest.fixture(scope="module")
def model(checkpoint):
    return model_on_references(checkpoint().folder)


@pytest.fixture(scope="module")
def layout(model):
    config = model.config
    return Layout(BLOCK_SIZE, config.n_positions, config.vocab_size, config.eos_token_id)


def scheduled(lens: list[tuple[int, int]], vocab_size: int, seed: int) -> list[ScheduledSequence]:
    """A sequence of each (length, new tokens), in blocks of its own, in no order."""
    chance = random.Random(seed)
    blocks = chance.sample(range(NUM_BLOCKS), NUM_BLOCKS)
    items = []
    for index, (length, num_new) in enumerate(lens):
        sequence = Sequence(
            request_id=f"{index}",
            choice_index=0,
            token_ids=[chance.randrange(vocab_size) for _ in range(length)],
            num_prompt_tokens=length,
            sampling_params=SamplingParams(max_tokens=1),
        )
        sequence.block_table = [blocks.pop() for _ in range(-(-length // BLOCK_SIZE))]
        sequence.num_computed_tokens = length - num_new
        items.append(ScheduledSequence(sequence, num_new))
    return items


@pytest.mark.parametrize("lens", PROMPTS.values(), ids=PROMPTS.keys())
@torch.inference_mode()
def test_filling_up_changes_neither_states_nor_cache(model, layout, lens):
    caches = [model.allocate_kv_cache(NUM_BLOCKS, BLOCK_SIZE) for _ in range(2)]
    prefix = torch.randn(caches[0].key.shape, generator=torch.Generator().manual_seed(1))
    for cache in caches:
        cache.key.copy_(prefix)
        cache.value.copy_(-prefix)
    forward = PromptForward(model, caches[0], layout, HostDevice(), max_tokens=80, max_seqs=16)
    assert torch.equal(caches[0].key, prefix), "recording wrote into the cache"

    for seed in range(2):  # the second finds what the first has left behind
        batch = build_batch(scheduled(lens, model.config.vocab_size, seed), BLOCK_SIZE, CPU)
        found = forward(batch)
        expected = model.forward(batch.token_ids, batch.positions, caches[1], batch.attention)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(caches[0].key, caches[1].key, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(caches[0].value, caches[1].value, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_longer_step_before_leaves_nothing_behind(model, layout):
    """Sizes share their memory, cut up in another way by each."""
    cache = model.allocate_kv_cache(NUM_BLOCKS, BLOCK_SIZE)
    vocab_size = model.config.vocab_size
    short = build_batch(scheduled([(6, 6)], vocab_size, seed=2), BLOCK_SIZE, CPU)
    fresh = PromptForward(model, cache, layout, HostDevice(), max_tokens=80, max_seqs=16)(short).clone()
    used = PromptForward(model, cache, layout, HostDevice(), max_tokens=80, max_seqs=16)
    used(build_batch(scheduled([(40, 40), (30, 30), *[(1, 1)] * 9], vocab_size, seed=3), BLOCK_SIZE, CPU))
    assert torch.equal(used(short), fresh)


@given(st.integers(1, 70_000))
def test_every_number_of_tokens_has_a_size_that_wastes_little(max_tokens):
    sizes = token_sizes(max_tokens)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == math.ceil(max_tokens / 16) * 16
    assert all(size % 16 == 0 for size in sizes)
    for lower, size in itertools.pairwise(sizes):
        assert lower < 256 or size <= lower * 5 / 4


@torch.inference_mode()
def test_a_size_is_recorded_once(model, layout, monkeypatch):
    recorded = []
    record = HostDevice.record
    monkeypatch.setattr(
        HostDevice, "record", lambda self, run: (recorded.append(tuple(run.args[0])), record(self, run))[1]
    )
    cache = model.allocate_kv_cache(NUM_BLOCKS, BLOCK_SIZE)
    forward = PromptForward(model, cache, layout, HostDevice(), max_tokens=80, max_seqs=16)
    assert recorded == []
    for lens in ([(5, 5)], [(16, 16)], [(17, 17)], [(30, 30), (2, 2)], [(1, 1)] * 9, [(80, 80)]):
        forward(build_batch(scheduled(lens, model.config.vocab_size, seed=4), BLOCK_SIZE, CPU))
    assert recorded == [(16, 8), (32, 8), (16, 16), (80, 8)]


@torch.inference_mode()
def test_what_can_not_be_recorded_runs_op_by_op(model, layout, monkeypatch, caplog):
    def full(self, run):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    batch = build_batch(scheduled([(5, 5)], model.config.vocab_size, seed=5), BLOCK_SIZE, CPU)
    caches = [model.allocate_kv_cache(NUM_BLOCKS, BLOCK_SIZE) for _ in range(2)]
    recorded, direct = (
        PromptForward(model, cache, layout, HostDevice(), max_tokens=80, max_seqs=16) for cache in caches
    )
    expected = recorded(batch)
    monkeypatch.setattr(HostDevice, "record", full)
    for _ in range(2):
        assert torch.equal(direct(batch), expected)
    assert caplog.text.count("CUDA out of memory") == 1, "said once, and not tried again"


def test_the_largest_is_recorded_at_the_start(model, layout, monkeypatch):
    monkeypatch.setattr(HostDevice, "compiles", True)
    cache = model.allocate_kv_cache(NUM_BLOCKS, BLOCK_SIZE)
    forward = PromptForward(model, cache, layout, HostDevice(), max_tokens=80, max_seqs=16)
    assert list(forward._passes) == [(80, 16)]
    assert not cache.key.any()
