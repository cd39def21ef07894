"""An engine with its KV cache in FP8, on the ops' references: half the memory, and about the same logits."""

import pytest
import torch

from tests.engine.cuda_runner.conftest import CPU, WORKING, device_model
from zeroshot.engine.engine import Engine
from zeroshot.engine.loader import load_model
from zeroshot.engine.selfcheck import prompt_logits
from zeroshot.errors import SettingsError
from zeroshot.model.config import GPT2Config
from zeroshot.model.fused_decode import FusedOps
from zeroshot.model.gpt2 import GPT2
from zeroshot.model.kv_scales import centred, kv_scales
from zeroshot.model.ops import Ops, device_backend
from zeroshot.model.weights import load_weights
from zeroshot.settings import EngineSettings

FP8 = torch.float8_e4m3fn


@pytest.fixture(scope="module")
def small(checkpoint):
    return checkpoint()


@pytest.fixture(scope="module")
def model(small):
    return device_model(small.folder, Ops(), WORKING, FusedOps(), FP8)


def test_no_text_has_keys_or_values_beyond_the_scales(small, model, prompts_of):
    """The scales come from the weights alone. They are powers of two, and no more than a few times too large."""
    config = GPT2Config.from_folder(small.folder)
    weights = centred(load_weights(small.folder, config, dtype=torch.float32, device=CPU))
    exact = GPT2(config, weights, device_backend(Ops(), WORKING))
    largest = torch.zeros(exact.config.n_layer, 2, exact.config.n_head)
    for seed in range(8):
        (prompt,) = prompts_of(seed, [100])
        cache = exact.allocate_kv_cache(7, 16)
        exact.allocate_kv_cache = lambda *_, cache=cache: cache
        prompt_logits(exact, prompt, 100)
        del exact.allocate_kv_cache
        for part, content in enumerate((cache.key, cache.value)):
            largest[:, part] = largest[:, part].maximum(content.abs().amax((1, 2, 4)))
    scales = torch.stack([kv_scales(layer, model.config.n_head) for layer in model.layers])
    assert torch.equal(scales, model.allocate_kv_cache(1, 16).scales)
    assert torch.equal(scales.log2(), scales.log2().round())
    assert (largest > 0).all()
    assert (largest <= 448 * scales).all()
    assert (largest * 16 >= 448 * scales).all()


def test_a_centred_model_is_the_same_model(small, prompts_of, hugging_face_logits):
    config = GPT2Config.from_folder(small.folder)
    weights = load_weights(small.folder, config, dtype=torch.float32, device=CPU)
    (prompt,) = prompts_of(3, [40])
    found = prompt_logits(GPT2(config, centred(weights), device_backend(Ops(), WORKING)), prompt, 40)
    assert float((found - hugging_face_logits(small.model, prompt)).abs().max()) < 1e-4
    assert not torch.equal(centred(weights).layers[0].attn_bias, weights.layers[0].attn_bias)


def test_logits_are_near_the_exact_ones_in_prefill_and_decode(small, model, prompts_of, hugging_face_logits):
    (prompt,) = prompts_of(1, [60])
    expected = hugging_face_logits(small.model, prompt)
    for chunk in (60, 7, 1):
        found = prompt_logits(model, prompt, chunk)
        error = float((found - expected).norm() / expected.norm())
        assert 1e-4 < error < 0.1, chunk


def test_all_blocks_come_back_after_requests_of_all_kinds(model, run, request_of, prompts_of):
    engine = Engine(model, EngineSettings(kv_block_size=16, max_num_seqs=4))
    prompts = prompts_of(2, [5, 40, 17, 64])
    requests = [request_of(str(i), p, max_tokens=12, temperature=i / 2, seed=i) for i, p in enumerate(prompts)]
    results = run(engine, *requests)
    assert all(len(results[str(i), 0].token_ids) > 0 for i in range(4))
    again = run(engine, *requests)  # now with cached prefixes
    assert engine.stats().cached_tokens_total > 0
    assert {k: r.token_ids for k, r in again.items()} == {k: r.token_ids for k, r in results.items()}
    cache = engine.runner.kv_cache
    assert not cache.key.float().isnan().any()
    assert cache.key[:, 0].float().any()
    cache.clear([0])
    assert not cache.key[:, 0].float().any()
    assert not cache.value[:, 0].float().any()
    assert cache.key.float().any()


def test_half_of_bf16s_memory_holds_as_many_tokens(small, model):
    cache = model.allocate_kv_cache(4, 16)
    plain = device_model(small.folder, Ops(), WORKING).allocate_kv_cache(4, 16)
    assert cache.key.untyped_storage().nbytes() * 4 == plain.key.untyped_storage().nbytes()


def test_a_cpu_refuses_it_by_name(small):
    with pytest.raises(SettingsError, match="kv_dtype fp8 is for GPUs"):
        load_model(EngineSettings(model_folder=small.folder, device="cpu", kv_dtype="fp8"))
