"""The same path with the Triton kernels in it, in the interpreter: slow, so the model is tiny and the tests are few."""

from dataclasses import replace

import pytest
import torch

from tests.engine.cuda_runner.conftest import CPU, WORKING, device_model
from tests.kernels.buffers import kernel_of
from zeroshot.engine.engine import Engine
from zeroshot.engine.selfcheck import prompt_logits
from zeroshot.model.config import GPT2Config
from zeroshot.model.fused_decode import FusedOps
from zeroshot.model.ops import Ops
from zeroshot.settings import EngineSettings
from zeroshot.types import BeamParams

kernel_of("layer_norm")  # skips all of this with the reason, where kernels can't run

TINY = {"vocab_size": 97, "n_positions": 64, "n_embd": 32, "n_head": 1, "n_layer": 1}


@pytest.fixture(scope="module")
def tiny(checkpoint):
    return checkpoint(**TINY)


@pytest.fixture(scope="module")
def chosen_ops(tiny):
    from zeroshot.model.triton_ops import triton_ops

    config = GPT2Config.from_folder(tiny.folder)
    return triton_ops(config, max_num_seqs=4, dtype=torch.float32, device=CPU)


@pytest.fixture(scope="module")
def engine_on_kernels(tiny, chosen_ops):
    return Engine(device_model(tiny.folder, *chosen_ops), EngineSettings(kv_block_size=16, max_num_seqs=4))


def test_every_kernel_works_here(chosen_ops):
    assert set(chosen_ops[1].values()) == {"triton"}, chosen_ops[1]


def test_greedy_tokens_are_hugging_faces(tiny, engine_on_kernels, run, request_of, prompts_of, hugging_face_greedy):
    """Ten prompts, of which some share a prefix, some stop early, four at a time."""
    prompts = prompts_of(1, [1, 5, 16, 17, 33] * 2, vocab_size=96)
    prompts[3], prompts[9] = prompts[4][:20], [*prompts[4][:32], 1]
    results = run(engine_on_kernels, *(request_of(str(i), p, max_tokens=5) for i, p in enumerate(prompts)))
    for i, prompt in enumerate(prompts):
        assert results[str(i), 0].token_ids == hugging_face_greedy(tiny.model, prompt, 5), i
    assert engine_on_kernels.stats().cached_tokens_total > 0


def test_every_kind_of_request_gets_the_cpu_paths_tokens(
    tiny, engine_on_kernels, load_cpu_engine, run, request_of, prompts_of
):
    kinds = [
        {"temperature": 1.0, "seed": 7},
        {"temperature": 0.8, "top_k": 5, "top_p": 0.9, "seed": 8},
        {"temperature": 1.0, "min_p": 0.1, "seed": 2**63 - 1, "n": 2},
        {"frequency_penalty": 1.5, "repetition_penalty": 1.3, "logit_bias": {3: 4.0}, "min_tokens": 3, "logprobs": 3},
        {"temperature": 0.9, "typical_p": 0.5, "seed": 9, "repetition_penalty": 1.2, "prompt_logprobs": 0},
    ]
    prompts = prompts_of(2, [5, 21, 3, 18, 9], vocab_size=96)
    requests = [request_of(str(i), p, max_tokens=6, **k) for i, (p, k) in enumerate(zip(prompts, kinds, strict=True))]
    found, expected = run(engine_on_kernels, *requests), run(load_cpu_engine(tiny.folder), *requests)
    assert {key: result.token_ids for key, result in found.items()} == {k: r.token_ids for k, r in expected.items()}
    for a, b in zip(found["3", 0].logprobs, expected["3", 0].logprobs, strict=True):
        assert (a.token_id, a.rank, [i for i, _ in a.top]) == (b.token_id, b.rank, [i for i, _ in b.top])
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)


def test_beams_are_the_cpu_paths_beside_others(tiny, engine_on_kernels, load_cpu_engine, run, request_of, prompts_of):
    prompts = prompts_of(6, [20, 3], vocab_size=96)
    requests = [
        request_of("a", prompts[0], max_tokens=6, n=2, beams=BeamParams(num_beams=3)),
        request_of("b", prompts[1], max_tokens=8, temperature=1.0, seed=3),
    ]
    found, expected = run(engine_on_kernels, *requests), run(load_cpu_engine(tiny.folder), *requests)
    assert {key: result.token_ids for key, result in found.items()} == {k: r.token_ids for k, r in expected.items()}


def test_prompt_scores_are_the_cpu_paths(tiny, engine_on_kernels, load_cpu_engine, run, request_of, prompts_of):
    (prompt,) = prompts_of(3, [30], vocab_size=96)
    for num_top in (0, 2):
        request = request_of("a", prompt, max_tokens=0, prompt_logprobs=num_top)
        found, expected = (run(e, request)["a", 0] for e in (engine_on_kernels, load_cpu_engine(tiny.folder)))
        assert [x.token_id for x in found.prompt_logprobs] == prompt[1:]
        for a, b in zip(found.prompt_logprobs, expected.prompt_logprobs, strict=True):
            assert (a.rank, len(a.top)) == (b.rank, num_top)
            assert a.logprob == pytest.approx(b.logprob, abs=1e-4)


def test_logits_by_any_chunks_are_hugging_faces(tiny, engine_on_kernels, prompts_of, hugging_face_logits):
    (prompt,) = prompts_of(4, [37], vocab_size=96)
    expected = hugging_face_logits(tiny.model, prompt)
    for chunk in (37, 9):  # and a last chunk of one token: a decode
        found = prompt_logits(engine_on_kernels.model, prompt, chunk)
        assert float((found - expected).abs().max()) < 1e-4


# A kernel that does not work


def broken(*_args, **_kwargs):
    raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")


def wrong(hidden, bias):
    return torch.zeros_like(hidden)


@pytest.mark.parametrize(
    ("name", "kernel", "reason"),
    [
        ("decode_attention", broken, "RuntimeError: Failed to find C compiler."),
        ("sampling", broken, "RuntimeError: Failed to find C compiler."),
        ("bias_gelu", wrong, "ArithmeticError: its result is off by 1.0e+00"),
    ],
)
def test_a_kernel_that_fails_gives_way_to_its_reference(
    tiny, monkeypatch, caplog, run, request_of, hugging_face_greedy, name, kernel, reason
):
    from zeroshot.model import triton_ops as module

    # References stand for the others, which are tried above; but attention's takes no workspace.
    others = {op: getattr(Ops(), op) for op in WORKING} | {"decode_attention": module.load_kernel("decode_attention")}
    monkeypatch.setattr(module, "load_kernel", (others | {name: kernel}).__getitem__)
    config = GPT2Config.from_folder(tiny.folder)
    ops, kernels = module.triton_ops(config, max_num_seqs=4, dtype=torch.float32, device=CPU)
    assert {op: status for op, status in kernels.items() if status != "triton"} == {name: f"reference: {reason}"}
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert name in warnings[0]
    engine = Engine(device_model(tiny.folder, ops, kernels), EngineSettings(kv_block_size=16, max_num_seqs=4))
    assert engine.stats().kernels == kernels
    prompt = [3, 1, 4, 1, 5]
    assert run(engine, request_of("a", prompt, max_tokens=3))["a", 0].token_ids == hugging_face_greedy(
        tiny.model, prompt, 3
    )


def test_without_triton_everything_is_a_reference(tiny, monkeypatch, run, request_of, hugging_face_greedy):
    from zeroshot.model import triton_ops as module

    def not_installed(_op):
        raise ModuleNotFoundError("No module named 'triton'")

    monkeypatch.setattr(module, "load_kernel", not_installed)
    config = GPT2Config.from_folder(tiny.folder)
    ops, kernels = module.triton_ops(config, max_num_seqs=4, dtype=torch.float32, device=CPU)
    assert set(kernels.values()) == {"reference: ModuleNotFoundError: No module named 'triton'"}
    engine = Engine(device_model(tiny.folder, ops, kernels), EngineSettings(kv_block_size=16, max_num_seqs=4))
    result = run(engine, request_of("a", [9, 8, 7], max_tokens=5))["a", 0]
    assert result.token_ids == hugging_face_greedy(tiny.model, [9, 8, 7], 5)


# Decode by five kernels a layer


@pytest.fixture(scope="module")
def fused(tiny, chosen_ops):
    from zeroshot.model.triton_fused import triton_fused_ops

    config = GPT2Config.from_folder(tiny.folder)
    return triton_fused_ops(config, wanted="on", kernels=chosen_ops[1], dtype=torch.float32, device=CPU)


def test_the_fused_path_works_here_and_is_in_health(tiny, chosen_ops, fused):
    assert fused[1] == "triton"
    engine = Engine(device_model(tiny.folder, *chosen_ops, fused[0]), EngineSettings(kv_block_size=16, max_num_seqs=4))
    assert engine.stats().kernels == chosen_ops[1] | {"fused_decode": "triton"}
    assert engine.model.backend.uses_kernels_only


def test_greedy_tokens_of_the_fused_path_are_the_plain_paths(
    tiny, chosen_ops, fused, engine_on_kernels, run, request_of, prompts_of, hugging_face_greedy
):
    """Alone and three at once; a page is full after the first token of one of them."""
    prompts = prompts_of(5, [1, 15, 52], vocab_size=96)
    requests = [request_of(str(i), p, max_tokens=3, ignore_eos=True) for i, p in enumerate(prompts)]
    engine = Engine(device_model(tiny.folder, *chosen_ops, fused[0]), EngineSettings(kv_block_size=16, max_num_seqs=4))
    expected = run(engine_on_kernels, *requests)
    assert run(engine, *requests) == expected
    assert run(engine, requests[1])["1", 0].token_ids == expected["1", 0].token_ids
    assert expected["1", 0].token_ids == hugging_face_greedy(tiny.model, prompts[1], 3, min_new_tokens=3)


@pytest.mark.parametrize(
    ("wanted", "kernels", "changed", "state"),
    [
        ("off", {}, {}, None),
        ("auto", {}, {}, "plain path: needs compute capability 9.0"),
        ("on", {"sampling": "reference: no compiler"}, {}, "plain path: other ops run as references"),
        ("on", {}, {"activation_function": "relu"}, "plain path: activation_function is relu"),
    ],
)
def test_the_plain_path_runs_where_the_fused_one_is_not_for(tiny, wanted, kernels, changed, state):
    from zeroshot.model.triton_fused import triton_fused_ops

    config = replace(GPT2Config.from_folder(tiny.folder), **changed)
    options = {"kernels": kernels, "dtype": torch.float32, "device": CPU}
    assert triton_fused_ops(config, wanted=wanted, **options) == (None, state)


@pytest.mark.parametrize(
    ("name", "kernel", "reason"),
    [
        ("ln_fc_gelu", broken, "RuntimeError: Failed to find C compiler."),
        (
            "projection",
            lambda hidden, *_, **__: torch.zeros(len(hidden), 32),
            "ArithmeticError: its result is off by 1.0e+00",
        ),
    ],
)
def test_a_fused_kernel_that_fails_gives_way_to_the_plain_path(tiny, monkeypatch, caplog, name, kernel, reason):
    from zeroshot.model import triton_fused as module

    load_kernel = module.load_kernel
    monkeypatch.setattr(module, "load_kernel", lambda op: kernel if op == name else load_kernel(op))
    options = {"wanted": "on", "kernels": {}, "dtype": torch.float32, "device": CPU}
    ops, state = module.triton_fused_ops(GPT2Config.from_folder(tiny.folder), **options)
    assert ops is None
    assert state.startswith(f"plain path: {reason}")
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert reason in warning


@pytest.mark.parametrize("wrong", ["projection", "layer_norm", "lm_head_sampling", "advance"])
def test_kernels_that_start_too_early_are_found_out(tiny, monkeypatch, wrong):
    """On a GPU their result is another one than in turn. Here something stands for it that depends on `use_pdl`."""
    from zeroshot.model import triton_fused as module

    def early(op):
        def call(*arguments, use_pdl, out=None, **options):
            result = getattr(FusedOps(), op)(*arguments, **options)
            if op == wrong and use_pdl:
                # What it wrote: `advance` to its last argument, the others to what they return, or the first of that.
                written = arguments[-1] if result is None else result[0] if isinstance(result, tuple) else result
                written.mul_(1 + 1e-6) if written.is_floating_point() else written.bitwise_xor_(1)
            return result

        return call

    monkeypatch.setattr(module, "load_kernel", early)
    monkeypatch.setattr(module, "_CHAINED_LAYERS", 2)
    monkeypatch.setattr(module, "_replays", lambda function, times: (function() for _ in range(times)))
    config = GPT2Config.from_folder(tiny.folder)
    assert module._tried(config, False, torch.float32, CPU, None)
    with pytest.raises(ArithmeticError, match="before the one ahead has ended"):
        module._tried(config, True, torch.float32, CPU, None)


# A KV cache in FP8

FP8 = torch.float8_e4m3fn


def test_kernels_are_tried_with_an_fp8_cache(tiny):
    from zeroshot.model.triton_fused import triton_fused_ops
    from zeroshot.model.triton_ops import triton_ops

    config = GPT2Config.from_folder(tiny.folder)
    types = {"dtype": torch.float32, "device": CPU, "kv_dtype": FP8}
    _, kernels = triton_ops(config, max_num_seqs=4, **types)
    assert set(kernels.values()) == {"triton"}, kernels
    _, state = triton_fused_ops(config, wanted="on", kernels=kernels, **types)
    assert state == "triton"


def test_an_engine_with_an_fp8_cache_draws_the_references_tokens(tiny, chosen_ops, fused, run, request_of, prompts_of):
    """By the plain path and by the fused one."""
    prompts = prompts_of(6, [17, 40], vocab_size=96)
    requests = [request_of(str(i), p, max_tokens=2, ignore_eos=True) for i, p in enumerate(prompts)]
    settings = EngineSettings(kv_block_size=16, max_num_seqs=4)
    reference = Engine(device_model(tiny.folder, Ops(), WORKING, kv_dtype=FP8), settings)
    expected = run(reference, *requests)
    for path in (None, fused[0]):
        engine = Engine(device_model(tiny.folder, *chosen_ops, path, FP8), settings)
        assert engine.runner.kv_cache.key.dtype == FP8
        assert {k: r.token_ids for k, r in run(engine, *requests).items()} == {
            k: r.token_ids for k, r in expected.items()
        }
