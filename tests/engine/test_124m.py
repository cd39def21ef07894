"""The real shape: a GPT-2 124M checkpoint with random values, saved by Hugging Face."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2LMHeadModel

from benchmarks.random_checkpoint import random_checkpoint
from zeroshot.engine.engine import Engine
from zeroshot.types import GenerateRequest, SamplingParams

NUM_PROMPTS, MAX_TOKENS = 20, 64


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 50256, (NUM_PROMPTS, 24), generator=generator).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint("124m", tmp_path_factory.mktemp("124m"))


@pytest.fixture(scope="module")
def expected(folder: Path, prompts: list[list[int]]) -> list[list[int]]:
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor(prompts)
    with torch.inference_mode():
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=MAX_TOKENS,
            min_new_tokens=MAX_TOKENS,
            do_sample=False,
            pad_token_id=50256,
        )
    return output[:, ids.shape[1] :].tolist()


def run(engine: Engine, prompts: dict[str, list[int]]) -> dict[str, list[int]]:
    params = SamplingParams(max_tokens=MAX_TOKENS, min_tokens=MAX_TOKENS, temperature=0.0)
    for request_id, prompt in prompts.items():
        engine.add_request(GenerateRequest(request_id=request_id, prompt_token_ids=prompt, sampling_params=params))
    tokens: dict[str, list[int]] = {request_id: [] for request_id in prompts}
    while engine.has_work:
        for output in engine.step():
            tokens[output.request_id] += output.token_ids
    return tokens


def test_greedy_tokens_equal_hugging_face_alone_and_in_one_batch(
    folder: Path, prompts: list[list[int]], expected: list[list[int]], load_engine: Callable[..., Any]
) -> None:
    engine = load_engine(folder)
    alone = [run(engine, {"alone": prompt})["alone"] for prompt in prompts]
    engine = load_engine(folder)  # with nothing in its prefix cache
    batch = run(engine, {str(index): prompt for index, prompt in enumerate(prompts)})
    assert alone == expected
    assert [batch[str(index)] for index in range(NUM_PROMPTS)] == expected
