"""Chooses what an engine is made of, by the model's device and by the settings. Called by `engine.py`."""

from dataclasses import dataclass
from functools import partial

import torch

from zeroshot.engine.cuda_runner import CudaRunner
from zeroshot.engine.device import CudaDevice, Device, HostDevice
from zeroshot.engine.draft import CHUNK, Draft, check_draft
from zeroshot.engine.model_runner import ModelRunner
from zeroshot.engine.runner import Runner
from zeroshot.engine.speculative import LOOKUP_ROWS, Guessing, look_up
from zeroshot.model.gpt2 import GPT2
from zeroshot.settings import EngineSettings

_STEP_TOKENS = {"cpu": 512, "cuda": 2048}
"""Enough for the matrix products to be as fast as they get. On a GPU that is by reckoning, not yet measured."""

_PROMPT_TOKENS_BESIDE_DECODES = {"cpu": 128, "cuda": 2048}
"""Every running stream waits for the whole step: how long on a CPU is in `benchmarks/results/fairness.json`."""

_NGRAM = 2
"""With the C++ kernels: a row has the same bits in any batch, and takes little time beside another. In other products
on a CPU a row depends on how many there are; on a GPU a step with guesses can't run ahead of the host."""


def make_runner(model: GPT2, num_kv_blocks: int, block_size: int, *, max_rows: int, max_prompt_tokens: int) -> Runner:
    kv_cache = model.allocate_kv_cache(num_kv_blocks, block_size)
    if not model.backend.is_device:
        return ModelRunner(model, kv_cache)
    device: Device = HostDevice()
    if model.device.type == "cuda":
        device = CudaDevice(model.device, can_record=model.backend.uses_kernels_only)
    return CudaRunner(model, kv_cache, device, max_rows=max_rows, max_prompt_tokens=max_prompt_tokens)


def make_guessing(model: GPT2, settings: EngineSettings, draft: GPT2 | None) -> Guessing | None:
    if draft is not None:
        return _by_draft(model, settings, draft)
    ngram = settings.speculative_ngram
    if ngram is None:
        ngram = _NGRAM if model.layer_loop is not None else 0
    if ngram == 0:
        return None
    max_seqs = 1 if model.backend.is_device else LOOKUP_ROWS // 2
    return Guessing(partial(look_up, ngram=ngram), LOOKUP_ROWS, max_seqs)


def _by_draft(model: GPT2, settings: EngineSettings, draft: GPT2) -> Guessing:
    check_draft(draft.config, model.config)
    block_size = settings.kv_block_size or draft.backend.kv_block_size
    num_blocks = -(-draft.config.n_positions // block_size)
    runner = make_runner(draft, num_blocks, block_size, max_rows=1, max_prompt_tokens=CHUNK)
    max_rows = 1 + settings.speculative_tokens
    if model.backend.fused is not None:  # in a larger step a row would have other bits than a token alone
        max_rows = min(max_rows, model.backend.max_fused_rows)
    return Guessing(Draft(runner, settings.speculative_tokens), max_rows, max_seqs=1)


@dataclass(frozen=True, slots=True)
class StepBudget:
    """Tokens that a step may run, and how many of them may be of prompts while streams are running."""

    max_num_batched_tokens: int
    max_prompt_tokens_beside_decodes: int


def step_budget(device: torch.device, settings: EngineSettings) -> StepBudget:
    """A setting is a bound that holds whatever else runs; without one, prompts leave running streams more of a step."""
    if settings.max_num_batched_tokens is not None:
        return StepBudget(settings.max_num_batched_tokens, settings.max_num_batched_tokens)
    return StepBudget(max(_STEP_TOKENS[device.type], settings.max_num_seqs), _PROMPT_TOKENS_BESIDE_DECODES[device.type])
