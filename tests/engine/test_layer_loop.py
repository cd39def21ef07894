"""All layers in one call of the C++ kernels give the bits that the layers give one after the other."""

import shutil
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroshot.model.config import GPT2Config
from zeroshot.model.gpt2 import GPT2, AttentionMetadata, KVCache
from zeroshot.model.native_linear import FORMATS
from zeroshot.model.native_ops import native_backend
from zeroshot.model.weights import load_weights

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")

BLOCK_SIZE = 4


@pytest.fixture(scope="module", params=FORMATS)
def model(checkpoint, request):
    return load(checkpoint().folder, request.param)


def load(folder, weight_format="fp32"):
    config = GPT2Config.from_folder(folder)
    weights = load_weights(folder, config, dtype=torch.float32, device=torch.device("cpu"))
    return GPT2(config, weights, native_backend(weight_format))


def step_of(sequences):
    """sequences: (cached tokens, new tokens) of each, in blocks that lie one after the other."""
    sequences = sorted(sequences, key=lambda lens: lens[1] > 1)
    tables, slots, start = [], [], 0
    for cached, new in sequences:
        num_blocks = -(-(cached + new) // BLOCK_SIZE)
        tables.append(list(range(start, start + num_blocks)))
        slots += range(start * BLOCK_SIZE + cached, start * BLOCK_SIZE + cached + new)
        start += num_blocks
    width = max(map(len, tables))
    attention = AttentionMetadata(
        slot_mapping=torch.tensor(slots),
        block_tables=torch.tensor([table + table[-1:] * (width - len(table)) for table in tables]),
        context_lens=[sum(lens) for lens in sequences],
        query_lens=[new for _, new in sequences],
        num_decodes=sum(new == 1 for _, new in sequences),
    )
    positions = torch.tensor([p for cached, new in sequences for p in range(cached, cached + new)])
    return attention, positions, start


def filled_cache(config, num_blocks):
    shape = (config.n_layer, num_blocks, BLOCK_SIZE, config.n_head, config.head_dim)
    generator = torch.Generator().manual_seed(1)
    return KVCache(torch.randn(shape, generator=generator), torch.randn(shape, generator=generator))


SEQUENCES = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=6)


@given(sequences=SEQUENCES, threads=st.integers(1, 3))
def test_it_gives_the_same_bits(model, sequences, threads):
    attention, positions, num_blocks = step_of(sequences)
    token_ids = torch.randint(0, model.config.vocab_size, positions.shape, generator=torch.Generator().manual_seed(2))
    caches = [filled_cache(model.config, num_blocks) for _ in range(2)]
    loop, before = model.layer_loop, torch.get_num_threads()
    assert loop is not None
    torch.set_num_threads(threads)
    try:
        together = model.forward(token_ids, positions, caches[0], attention)
        model.layer_loop = None
        alone = model.forward(token_ids, positions, caches[1], attention)
    finally:
        model.layer_loop = loop
        torch.set_num_threads(before)
    assert torch.equal(together, alone)
    assert torch.equal(caches[0].key, caches[1].key)
    assert torch.equal(caches[0].value, caches[1].value)


def test_threads_that_are_held_up_change_nothing(model):
    """Eight of them, beside processes that want the cores as well: many come to a loop when it is over."""
    attention, positions, num_blocks = step_of([(17, 1), (3, 1), (0, 9)])
    token_ids, before = torch.arange(len(positions)), torch.get_num_threads()
    expected = model.forward(token_ids, positions, filled_cache(model.config, num_blocks), attention)
    cache = filled_cache(model.config, num_blocks)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    torch.set_num_threads(8)
    try:
        for _ in range(100):
            assert torch.equal(model.forward(token_ids, positions, cache, attention), expected)
    finally:
        torch.set_num_threads(before)
        for process in busy:
            process.kill()
            process.wait()


def test_layers_that_are_not_gpt2s_own_run_one_after_the_other(checkpoint):
    assert load(checkpoint(activation_function="relu").folder).layer_loop is None
