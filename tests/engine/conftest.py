"""Drives an engine to the end and keeps what each choice got; what Hugging Face would have said."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from zeroshot.engine.engine import Engine
from zeroshot.types import GenerateRequest, SamplingParams, TokenLogprob


@dataclass
class Result:
    """All outputs of one choice, put together."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None
    stop_token_id: int | None = None
    num_cached_tokens: int = 0
    error_code: str | None = None
    beam_score: float | None = None


def _request(request_id: str, prompt: list[int], *, n: int = 1, **params: Any) -> GenerateRequest:
    """Greedy unless told otherwise."""
    params = {"temperature": 0.0} | params
    return GenerateRequest(
        request_id=request_id, prompt_token_ids=prompt, sampling_params=SamplingParams(**params), n=n
    )


def _drain(engine: Engine, results: dict[tuple[str, int], Result] | None = None) -> dict[tuple[str, int], Result]:
    """Step until there is no work left. Checks on the way what must hold after every step."""
    results = {} if results is None else results
    for _ in range(5000):
        if not engine.has_work:
            break
        _step(engine, results)
    assert not engine.has_work, "the engine never came to an end"
    stats = engine.stats()
    assert stats.num_free_kv_blocks == stats.num_kv_blocks
    assert stats.num_running == stats.num_waiting == 0
    assert engine._sequences == {}
    return results


def _step(engine: Engine, results: dict[tuple[str, int], Result]) -> None:
    outputs = engine.step()
    keys = [(output.request_id, output.choice_index) for output in outputs]
    assert len(keys) == len(set(keys)), "more than one output for a choice in a step"
    for key, output in zip(keys, outputs, strict=True):
        result = results.setdefault(key, Result())
        assert result.finish_reason is None, f"{key} got something after its end"
        assert len(output.token_ids) <= 8 or output.beam_score is not None, "one from the CPU, eight from a GPU at most"
        result.beam_score = output.beam_score
        result.token_ids += output.token_ids
        result.logprobs += output.logprobs
        result.prompt_logprobs += output.prompt_logprobs
        result.finish_reason = output.finish_reason
        result.stop_token_id = output.stop_token_id
        result.num_cached_tokens = max(result.num_cached_tokens, output.num_cached_tokens)
        result.error_code = output.error_code


def _run(engine: Engine, *requests: GenerateRequest) -> dict[tuple[str, int], Result]:
    for request in requests:
        engine.add_request(request)
    return _drain(engine)


@pytest.fixture(scope="session")
def request_of() -> Callable[..., GenerateRequest]:
    return _request


@pytest.fixture(scope="session")
def step() -> Callable[[Engine, dict[tuple[str, int], Result]], None]:
    return _step


@pytest.fixture(scope="session")
def drain() -> Callable[..., dict[tuple[str, int], Result]]:
    return _drain


@pytest.fixture(scope="session")
def run() -> Callable[..., dict[tuple[str, int], Result]]:
    """run(engine, *requests) -> {(request id, choice index): Result}, all added at once."""
    return _run


@pytest.fixture(scope="session")
def prompts_of() -> Callable[..., list[list[int]]]:
    """prompts_of(seed, lengths, vocab_size=210): random prompts without the end of text."""

    def make(seed: int, lengths: list[int], vocab_size: int = 210) -> list[list[int]]:
        rng = torch.Generator().manual_seed(seed)
        return [torch.randint(0, vocab_size, (length,), generator=rng).tolist() for length in lengths]

    return make


@pytest.fixture(scope="session")
def hugging_face_greedy() -> Callable[..., list[int]]:
    def generate(model: GPT2LMHeadModel, prompt: list[int], max_tokens: int, **options: Any) -> list[int]:
        output = model.generate(torch.tensor([prompt]), max_new_tokens=max_tokens, do_sample=False, **options)
        return output[0, len(prompt) :].tolist()

    return generate


@pytest.fixture(scope="session")
def hugging_face_logits() -> Callable[[GPT2LMHeadModel, list[int]], Tensor]:
    """[len(token_ids), vocab_size] float32."""

    def logits(model: GPT2LMHeadModel, token_ids: list[int]) -> Tensor:
        with torch.inference_mode():
            return model(torch.tensor([token_ids])).logits[0]

    return logits
