"""Decode by five kernels a layer: started early or in turn, the same bits; and the plain path's tokens."""

from pathlib import Path

import pytest
import torch

from zeroshot.engine.engine import Engine
from zeroshot.engine.loader import load_model
from zeroshot.model.config import GPT2Config
from zeroshot.model.gpt2 import GPT2
from zeroshot.model.ops import device_backend
from zeroshot.model.triton_fused import _Probe, fused_kernels
from zeroshot.model.weights import load_weights
from zeroshot.settings import EngineSettings

SHAPE = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_head": 12, "n_layer": 4}
MAX_NUM_SEQS = 8


@pytest.fixture(scope="module")
def wide(checkpoint):
    return checkpoint(**SHAPE, initializer_range=0.08)


def model_of(folder: Path, dtype: str, fused: str) -> GPT2:
    settings = EngineSettings(model_folder=folder, device="cuda", dtype=dtype, fused_decode=fused)
    return load_model(settings.model_copy(update={"max_num_seqs": MAX_NUM_SEQS}))


def engine_of(model: GPT2) -> Engine:
    return Engine(model, EngineSettings(max_num_seqs=MAX_NUM_SEQS))


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_the_fused_path_works_on_this_card(wide, cuda, dtype):
    states = model_of(wide.folder, dtype, "on").backend.states
    assert set(states.values()) == {"triton"}, states


def test_it_is_chosen_by_itself_from_hopper_on(wide, cuda):
    state = model_of(wide.folder, "bf16", "auto").backend.states["fused_decode"]
    assert state == ("triton" if torch.cuda.get_device_capability() >= (9, 0) else state)
    assert state in ("triton", "plain path: needs compute capability 9.0")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_row_has_the_same_bits_alone_and_beside_another(wide, cuda, dtype):
    """Alone it has code of its own, and the compiler may join other products and sums there."""
    config = GPT2Config.from_folder(wide.folder)
    ops = fused_kernels(config, False, cuda)
    alone, beside = (_Probe(config, num_rows, dtype, cuda, None).run(ops, 3)[0] for num_rows in (1, 2))
    assert torch.equal(alone[0], beside[0])


def test_greedy_tokens_are_the_plain_paths_in_fp32(wide, cuda, run, request_of, prompts_of):
    prompts = prompts_of(2, [1, 16, 63, 64, 65, 200, 500], vocab_size=50256)
    requests = [request_of(str(i), prompt, max_tokens=64, ignore_eos=True) for i, prompt in enumerate(prompts)]
    expected = run(engine_of(model_of(wide.folder, "fp32", "off")), *requests)
    engine = engine_of(model_of(wide.folder, "fp32", "on"))
    assert run(engine, *requests) == expected
    for request in requests[::3]:
        key = (request.request_id, 0)
        assert run(engine, request)[key].token_ids == expected[key].token_ids, "alone"


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_hundred_thousand_tokens_started_early_or_in_turn_are_the_same(
    wide, cuda, run, request_of, prompts_of, dtype
):
    """Were a kernel to start too early, or a grid never to start, it would show here, or never return."""
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("programmatic dependent launch needs compute capability 9.0")
    prompts = prompts_of(3, [5, 33, 64, 7, 12, 130, 1, 63], vocab_size=50256)
    results = []
    for use_pdl in (True, False):
        model = model_of(wide.folder, dtype, "on")
        ops = fused_kernels(model.config, use_pdl, model.device)
        weights = load_weights(wide.folder, model.config, dtype=model.dtype, device=model.device)
        backend = device_backend(model.backend.ops, model.backend.kernels, ops, "triton")
        engine = engine_of(GPT2(model.config, weights, backend))
        results.append({})
        for round_ in range(15):  # as many as there are seats: while somebody waits, one step is launched at a time
            options = {"max_tokens": 890, "temperature": 1.0, "seed": round_, "ignore_eos": True}
            requests = [request_of(f"{round_}-{i}", prompt, **options) for i, prompt in enumerate(prompts)]
            results[-1] |= run(engine, *requests)
        assert sum(len(result.token_ids) for result in results[-1].values()) > 100_000
    assert results[0] == results[1]
