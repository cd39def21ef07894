"""Loads a checked GPT-2 checkpoint into tensors. Called by the engine when it starts, and by `selfcheck`."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from zeroshot.errors import WeightsError
from zeroshot.model.checkpoint import check_checkpoint
from zeroshot.model.config import GPT2Config


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One transformer block. Linear weights are [in, out], as GPT-2 stores them."""

    ln_1_weight: Tensor  # [n_embd]
    ln_1_bias: Tensor  # [n_embd]
    attn_weight: Tensor  # [n_embd, 3 * n_embd], the columns are query, key, value
    attn_bias: Tensor  # [3 * n_embd]
    attn_proj_weight: Tensor  # [n_embd, n_embd]
    attn_proj_bias: Tensor  # [n_embd]
    ln_2_weight: Tensor  # [n_embd]
    ln_2_bias: Tensor  # [n_embd]
    fc_weight: Tensor  # [n_embd, n_inner]
    fc_bias: Tensor  # [n_inner]
    fc_proj_weight: Tensor  # [n_inner, n_embd]
    fc_proj_bias: Tensor  # [n_embd]


@dataclass(frozen=True, slots=True)
class GPT2Weights:
    wte: Tensor  # [vocab_size, n_embd]
    wpe: Tensor  # [n_positions, n_embd]
    layers: tuple[LayerWeights, ...]
    ln_f_weight: Tensor  # [n_embd]
    ln_f_bias: Tensor  # [n_embd]
    lm_head: Tensor  # [vocab_size, n_embd]; the same tensor as wte when tied


def load_weights(folder: Path, config: GPT2Config, *, dtype: torch.dtype, device: torch.device) -> GPT2Weights:
    """Raises WeightsError for whatever `check_checkpoint` refuses, and for a head that contradicts the config."""
    tensors: dict[str, Tensor] = {}
    for file, stored in groupby(check_checkpoint(folder, config), key=lambda tensor: tensor.file):
        try:
            with safe_open(file, framework="pt") as opened:
                for tensor in stored:
                    tensors[tensor.name] = opened.get_tensor(tensor.stored_name).to(device, dtype)
        except SafetensorError as error:
            raise WeightsError(f"{file} is not a valid safetensors file: {error}") from None
    return GPT2Weights(
        wte=tensors["wte.weight"],
        wpe=tensors["wpe.weight"],
        layers=tuple(_layer(tensors, index) for index in range(config.n_layer)),
        ln_f_weight=tensors["ln_f.weight"],
        ln_f_bias=tensors["ln_f.bias"],
        lm_head=_lm_head(tensors, config, folder),
    )


def _layer(tensors: dict[str, Tensor], index: int) -> LayerWeights:
    def get(name: str) -> Tensor:
        return tensors[f"h.{index}.{name}"]

    return LayerWeights(
        ln_1_weight=get("ln_1.weight"),
        ln_1_bias=get("ln_1.bias"),
        attn_weight=get("attn.c_attn.weight"),
        attn_bias=get("attn.c_attn.bias"),
        attn_proj_weight=get("attn.c_proj.weight"),
        attn_proj_bias=get("attn.c_proj.bias"),
        ln_2_weight=get("ln_2.weight"),
        ln_2_bias=get("ln_2.bias"),
        fc_weight=get("mlp.c_fc.weight"),
        fc_bias=get("mlp.c_fc.bias"),
        fc_proj_weight=get("mlp.c_proj.weight"),
        fc_proj_bias=get("mlp.c_proj.bias"),
    )


def _lm_head(tensors: dict[str, Tensor], config: GPT2Config, folder: Path) -> Tensor:
    wte, lm_head = tensors["wte.weight"], tensors.get("lm_head.weight")
    if not config.tie_word_embeddings:
        return tensors["lm_head.weight"]
    if lm_head is not None and not torch.equal(lm_head, wte):
        raise WeightsError(
            f"{folder}: tensor lm_head.weight differs from wte.weight, but config.json says tie_word_embeddings"
        )
    return wte
