"""The engine as its process sees it: what it counts, how large a cache it takes, what it does with nothing to do."""

import pytest
import torch

from zeroshot.engine import memory
from zeroshot.engine.loader import load_model
from zeroshot.settings import EngineSettings


@pytest.fixture(scope="module")
def small(checkpoint):
    return checkpoint()


def test_nothing_to_do(small, load_engine):
    engine = load_engine(small.folder)
    assert not engine.has_work
    assert engine.step() == []
    assert engine.stats().steps_total == 0


def test_what_is_counted(small, load_engine, prompts_of, run, step, drain, request_of):
    engine = load_engine(small.folder, max_num_seqs=2, kv_block_size=8)
    prompts = prompts_of(1, [20, 9, 30])
    for i, prompt in enumerate(prompts):
        engine.add_request(request_of(str(i), prompt, max_tokens=3, ignore_eos=True))
    assert (engine.stats().num_running, engine.stats().num_waiting) == (0, 3)
    step(engine, {})
    stats = engine.stats()
    assert (stats.num_running, stats.num_waiting, stats.steps_total) == (2, 1, 1)
    assert stats.num_kv_blocks - stats.num_free_kv_blocks == 3 + 2
    drain(engine)
    stats = engine.stats()
    assert (stats.prompt_tokens_total, stats.cached_tokens_total, stats.generation_tokens_total) == (59, 0, 9)
    run(engine, request_of("again", prompts[2], n=2, max_tokens=2, ignore_eos=True))
    stats = engine.stats()
    assert (stats.prompt_tokens_total, stats.cached_tokens_total, stats.generation_tokens_total) == (119, 48, 13)


@pytest.mark.parametrize(
    ("options", "num_blocks"),
    [
        ({"max_num_seqs": 3}, 3 * 8),
        ({"max_num_seqs": 1, "kv_block_size": 100}, 2),
        ({"kv_cache_tokens": 1000}, 62),
        ({"kv_cache_tokens": 1}, 8),  # one full context at the very least
    ],
    ids=str,
)
def test_the_size_of_the_cache(small, load_engine, options, num_blocks):
    engine = load_engine(small.folder, **options)
    assert engine.stats().num_kv_blocks == num_blocks == engine.stats().num_free_kv_blocks
    block_size = options.get("kv_block_size", 16)
    assert engine.runner.kv_cache.key.shape == (2, num_blocks, block_size, 3, 16)


def test_the_memory_of_the_cache_is_bounded(small, load_engine, monkeypatch):
    bytes_per_block = 2 * 2 * 48 * 4 * 16
    monkeypatch.setitem(memory._MOST_BYTES, "cpu", 20 * bytes_per_block + 1)
    assert load_engine(small.folder, max_num_seqs=64).stats().num_kv_blocks == 20
    monkeypatch.setitem(memory._MOST_BYTES, "cpu", 1)
    assert load_engine(small.folder, max_num_seqs=64).stats().num_kv_blocks == 8


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_dtypes_on_a_cpu(small, load_engine, run, request_of, dtype, expected):
    """By PyTorch's operators; what the C++ kernels do with each is in test_weight_formats.py."""
    settings = {"dtype": dtype, "cpu_kernels": "off"}
    model = load_model(EngineSettings(model_folder=small.folder, device="cpu", **settings))
    assert model.dtype == expected
    engine = load_engine(small.folder, **settings)
    assert engine.runner.kv_cache.key.dtype == expected
    assert len(run(engine, request_of("a", [1, 2, 3], max_tokens=3, ignore_eos=True))["a", 0].token_ids) == 3


@pytest.mark.parametrize(
    ("options", "at_most", "beside_decodes"),
    [
        ({}, 512, 128),
        ({"max_num_seqs": 700}, 700, 128),
        ({"max_num_batched_tokens": 64}, 64, 64),
        ({"max_num_batched_tokens": 2048}, 2048, 2048),  # who says how many means it
    ],
    ids=str,
)
def test_the_tokens_of_a_step(small, load_engine, options, at_most, beside_decodes):
    scheduler = load_engine(small.folder, kv_cache_tokens=512, **options).scheduler
    assert scheduler.max_num_batched_tokens == at_most
    assert scheduler.max_prompt_tokens_beside_decodes == beside_decodes
