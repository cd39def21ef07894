"""`--dtype bf16` and `int8` on a CPU: the same tokens alone and in a batch, and nearly the same model as in fp32."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from benchmarks.command import DEMO, RESULTS, ROOT
from benchmarks.quality import BOOKS_FILE, books, compare, weights_sha256
from benchmarks.weight_quality import ROUNDED, models
from zeroshot.engine.loader import load_model
from zeroshot.engine.selfcheck import prompt_logits
from zeroshot.errors import SettingsError
from zeroshot.model.native_ops import why_unavailable
from zeroshot.settings import DType, EngineSettings
from zeroshot.text.tokenizer import Tokenizer
from zeroshot_kernels.cpu.attention import converts_half
from zeroshot_kernels.cpu.compiler import processor_features

DATA = Path(os.environ.get("TRAINING_DATA", "")) / "eval"


TOKEN_IDS = torch.randint(0, 50256, (70,), generator=torch.Generator().manual_seed(0)).tolist()


def distance(logits: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative, over all of them."""
    return float((logits - expected).norm() / expected.norm())


def settings_of(**settings: Any) -> EngineSettings:
    return EngineSettings(**{"model_folder": DEMO, "device": "cpu"} | settings)


has_kernels = pytest.mark.skipif(why_unavailable() is not None, reason=f"no C++ kernels: {why_unavailable()}")
FORMATS = [pytest.param("bf16", marks=has_kernels), "int8"]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_same_tokens_alone_and_in_a_batch(
    load_engine: Callable[..., Any],
    prompts_of: Callable[..., Any],
    request_of: Callable[..., Any],
    run: Callable[..., Any],
    temperature: float,
    dtype: str,
) -> None:
    prompts = prompts_of(3, [5, 40, 1, 17, 90, 33, 16, 8], vocab_size=50000)
    requests = [
        request_of(str(index), prompt, max_tokens=24, temperature=temperature, seed=index)
        for index, prompt in enumerate(prompts)
    ]
    together = run(load_engine(DEMO, dtype=dtype), *requests)
    for request in requests:
        alone = run(load_engine(DEMO, dtype=dtype), request)
        key = (request.request_id, 0)
        assert alone[key].token_ids == together[key].token_ids


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_prompt_in_chunks_is_the_prompt_at_once(dtype: str) -> None:
    """But for sums in another order, each of which may tip the rounding of an activation; no more than that does."""
    model, exact = load_model(settings_of(dtype=dtype)), load_model(settings_of(dtype="fp32"))
    at_once = prompt_logits(model, TOKEN_IDS, len(TOKEN_IDS))
    rounding = distance(at_once, prompt_logits(exact, TOKEN_IDS, len(TOKEN_IDS)))
    for chunk in (1, 7, 32):
        assert distance(prompt_logits(model, TOKEN_IDS, chunk), at_once) < rounding


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"dtype": "int8", "cpu_kernels": "off"}, torch.float32),
        ({"dtype": "int8", "kv_dtype": "fp32"}, torch.float32),
        ({"dtype": "fp32"}, torch.float32),
        ({"dtype": "fp32", "kv_dtype": "fp16"}, torch.float16),
        ({"dtype": "fp32", "kv_dtype": "fp16", "cpu_kernels": "off"}, torch.float16),
        ({"dtype": "bf16", "kv_dtype": "fp32"}, torch.float32),
        ({"dtype": "bf16", "cpu_kernels": "off"}, torch.bfloat16),
        ({"dtype": "fp16"}, torch.float16),
    ],
    ids=str,
)
def test_the_dtype_of_keys_and_values(settings: dict[str, str], expected: torch.dtype) -> None:
    model = load_model(settings_of(**settings))
    assert model.allocate_kv_cache(1, 16).key.dtype == expected
    by_pytorch = {"fp16": torch.float16} | ({"bf16": torch.bfloat16} if "cpu_kernels" in settings else {})
    assert model.dtype == by_pytorch.get(settings["dtype"], torch.float32)


@has_kernels
@pytest.mark.skipif(not converts_half(), reason="these are slower than fp32 here")
@pytest.mark.parametrize("dtype", ROUNDED)
def test_keys_and_values_are_halves_beside_rounded_weights(dtype: str) -> None:
    model = load_model(settings_of(dtype=dtype))
    assert (model.dtype, model.allocate_kv_cache(1, 16).key.dtype) == (torch.float32, torch.float16)


@pytest.mark.parametrize("cpu_kernels", ["auto", "off"])
@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_keys_and_values_in_halves_change_little(dtype: str, cpu_kernels: str) -> None:
    """Beside int8 no more than int8 does: one rounding may tip another."""
    full, half = (
        prompt_logits(load_model(settings_of(dtype=dtype, cpu_kernels=cpu_kernels, kv_dtype=kv_dtype)), TOKEN_IDS, 7)
        for kv_dtype in ("fp32", "fp16")
    )
    assert not torch.equal(half, full)
    if dtype == "fp32":
        assert distance(half, full) < 1e-3
    else:
        exact = prompt_logits(load_model(settings_of(dtype="fp32", cpu_kernels=cpu_kernels)), TOKEN_IDS, 7)
        assert distance(half, exact) < 1.25 * distance(full, exact)


@has_kernels
def test_bf16_is_hugging_faces_model_with_rounded_weights() -> None:
    """And nothing else is rounded, except for what matrix registers multiply."""
    expected = GPT2LMHeadModel.from_pretrained(DEMO, dtype=torch.float32).eval()
    for module in [module for module in expected.modules() if isinstance(module, Conv1D)]:
        module.weight.data = module.weight.data.bfloat16().float()
    expected.lm_head.weight = torch.nn.Parameter(expected.lm_head.weight.bfloat16().float())  # embeddings are not
    with torch.inference_mode():
        logits = expected(torch.tensor([TOKEN_IDS])).logits[0]
    found = prompt_logits(load_model(settings_of(dtype="bf16", kv_dtype="fp32")), TOKEN_IDS, len(TOKEN_IDS))
    assert distance(found, logits) < (1e-2 if "amx_bf16" in processor_features() else 1e-5)


GATES = {"bf16": (0.2, 97.0), "int8": (1.0, 90.0)}
"""How much the perplexity of the books may change, and on how many first choices a format must agree; percent."""


@pytest.mark.parametrize("dtype", FORMATS)
def test_perplexity_is_nearly_that_of_fp32(dtype: DType) -> None:
    try:
        text = books(DATA)
    except FileNotFoundError:
        pytest.skip("the corpus is not at hand: set TRAINING_DATA to the folder that holds eval/" + BOOKS_FILE)
    tokens = Tokenizer.from_folder(DEMO).encode(text)
    change, agreement = GATES[dtype]
    quality = compare(models(DEMO, dtype), tokens, num_windows=4, window_tokens=512)
    assert abs(quality["perplexity_change_percent"]) < change
    assert quality["greedy_agreement_percent"] > agreement


@pytest.mark.parametrize("dtype", ROUNDED)
def test_the_committed_measurement_is_of_the_bundled_model_and_passes_the_gate(dtype: str) -> None:
    """Where the corpus is not at hand, this is what notices that another model was bundled."""
    result = json.loads((RESULTS / "weight_quality.json").read_text())
    assert result["weights_sha256"] == weights_sha256(DEMO)
    quality = result["quality"][dtype]
    assert abs(quality[BOOKS_FILE]["perplexity_change_percent"]) < GATES[dtype][0]
    for text in quality.values():
        said = f"{text['perplexity_change_percent']:+.2f} %"
        assert said in (ROOT / "README.md").read_text()
        assert said in (ROOT / "docs" / "cpu.md").read_text()


def test_without_an_int8_library_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeroshot.model.int8_linear._libraries", lambda: {"qnnpack"})
    with pytest.raises(SettingsError, match="x86"):
        load_model(settings_of(dtype="int8", cpu_kernels="off"))
