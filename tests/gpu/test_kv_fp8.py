"""A KV cache in FP8 on the GPU: the bits that the reference writes, and about the exact logits."""

import pytest
import torch

from zeroshot.engine.engine import Engine
from zeroshot.engine.loader import load_model
from zeroshot.engine.selfcheck import prompt_logits
from zeroshot.model.triton_ops import load_kernel
from zeroshot.settings import EngineSettings
from zeroshot_kernels.kv_append.reference import kv_append_reference

FP8 = torch.float8_e4m3fn


@pytest.fixture(autouse=True)
def can_convert(cuda):
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("FP8 needs compute capability 8.9")


@pytest.fixture(scope="module")
def wide(checkpoint):
    return checkpoint(vocab_size=50257, n_positions=1024, n_embd=768, n_head=12, n_layer=4, initializer_range=0.08)


def model_of(folder, dtype, **options):
    return load_model(EngineSettings(model_folder=folder, device="cuda", dtype=dtype, max_num_seqs=8, **options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_what_is_written_are_the_references_bits(cuda, dtype):
    generator = torch.Generator().manual_seed(0)
    key, value = (torch.randn(2, 500, 12, 64, generator=generator) * 40).to(cuda, dtype)
    scales = torch.exp2(torch.arange(12, device=cuda) % 5 - 4.0), torch.exp2(torch.arange(12, device=cuda) % 3 - 2.0)
    slots = torch.arange(500, dtype=torch.int32, device=cuda)
    found, expected = (torch.zeros(2, 8, 64, 12, 64, device=cuda).to(FP8) for _ in range(2))
    load_kernel("kv_append")(key, value, slots, *found, *scales)
    kv_append_reference(key.cpu(), value.cpu(), slots.cpu(), *(on_host := expected.cpu()), *(s.cpu() for s in scales))
    assert torch.equal(found.cpu().view(torch.uint8), on_host.view(torch.uint8))


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_every_kernel_works_and_logits_are_near(wide, prompts_of, hugging_face_logits, dtype):
    model = model_of(wide.folder, dtype, kv_dtype="fp8", fused_decode="on")
    assert set(model.backend.states.values()) == {"triton"}, model.backend.states
    (token_ids,) = prompts_of(1, [300], vocab_size=50256)
    expected = hugging_face_logits(wide.model, token_ids)
    for chunk in (300, 129):
        found = prompt_logits(model, token_ids, chunk).cpu()
        assert 1e-4 < float((found - expected).norm() / expected.norm()) < 0.1


def test_small_batches_draw_what_large_ones_do(wide, run, request_of, prompts_of):
    """The fused path and the plain one, fp32, on the same stored bits but for keys on the edge between two values."""
    prompts = prompts_of(2, [5, 64, 200], vocab_size=50256)
    requests = [request_of(str(i), p, max_tokens=16, ignore_eos=True) for i, p in enumerate(prompts)]
    results = []
    for fused in ("on", "off"):
        model = model_of(wide.folder, "fp32", kv_dtype="fp8", fused_decode=fused)
        results.append(run(Engine(model, EngineSettings(max_num_seqs=8)), *requests))
    same = sum(
        a == b
        for key, result in results[0].items()
        for a, b in zip(result.token_ids, results[1][key].token_ids, strict=True)
    )
    assert same >= 40, "of 48"
