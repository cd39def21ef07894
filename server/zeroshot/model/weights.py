"""Reads a GPT-2 checkpoint from safetensors files. Called by the engine when it starts, and by `selfcheck`.

Everything is checked against the configuration before any of it is served; an error names the tensor.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from zeroshot.errors import WeightsError
from zeroshot.model.config import GPT2Config

# Causal masks that old checkpoints stored as buffers: no weights, and we make our own.
_STRAY_BUFFER = re.compile(r"^h\.\d+\.attn\.(bias|masked_bias)$")
_FLOAT_DTYPES = {"F16", "BF16", "F32", "F64"}
_CONVERT = (
    "python -c \"from transformers import GPT2LMHeadModel as M; M.from_pretrained('{folder}')"
    ".save_pretrained('{folder}', safe_serialization=True)\""
)


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
    """Raises WeightsError for a missing, unexpected, misshapen or unreadable tensor, and for pickled weights."""
    files = _safetensors_files(folder)
    tensors = {name: tensor.to(device, dtype) for name, tensor in _read_checked(files, config)}
    missing = sorted(_expected_shapes(config).keys() - tensors.keys() - {"lm_head.weight"})
    if missing:
        raise WeightsError(f"{folder}: tensor {missing[0]} is missing ({len(missing)} missing in all)")
    wte = tensors["wte.weight"]
    return GPT2Weights(
        wte=wte,
        wpe=tensors["wpe.weight"],
        layers=tuple(_layer(tensors, index) for index in range(config.n_layer)),
        ln_f_weight=tensors["ln_f.weight"],
        ln_f_bias=tensors["ln_f.bias"],
        lm_head=_lm_head(tensors, config, folder),
    )


def _safetensors_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise WeightsError(f"{index} is not a valid shard index: {error!r}") from None
        if any(Path(name).name != name for name in names):
            raise WeightsError(f"{index} names a file outside its folder")
        files = [folder / name for name in names]
    else:
        files = [folder / "model.safetensors"]
    missing = [file.name for file in files if not file.exists()]
    if not missing:
        return files
    pickled = next(iter(sorted([*folder.glob("*.bin"), *folder.glob("*.pt")])), None)
    if pickled is not None and not index.exists():
        raise WeightsError(
            f"{pickled} is a pickle, which can run code when opened; only safetensors are read. "
            f"If you trust it, convert it once: {_CONVERT.format(folder=folder)}"
        )
    raise WeightsError(f"{folder} has no {missing[0]}")


def _read_checked(files: list[Path], config: GPT2Config) -> Iterator[tuple[str, Tensor]]:
    """Each tensor under its short name, after its name, dtype and shape have been checked."""
    expected = _expected_shapes(config)
    seen: set[str] = set()
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for full_name in opened.keys():  # noqa: SIM118 - not a dict
                    name = full_name.removeprefix("transformer.")
                    if _STRAY_BUFFER.match(name):
                        continue
                    header = opened.get_slice(full_name)
                    _check(file, name, header.get_dtype(), tuple(header.get_shape()), expected)
                    if name in seen:
                        raise WeightsError(f"{file}: tensor {name} is there twice")
                    seen.add(name)
                    yield name, opened.get_tensor(full_name)
        except SafetensorError as error:
            raise WeightsError(f"{file} is not a valid safetensors file: {error}") from None


def _check(file: Path, name: str, dtype: str, shape: tuple[int, ...], expected: dict[str, tuple[int, ...]]) -> None:
    if name not in expected:
        raise WeightsError(f"{file}: unexpected tensor {name}")
    if dtype not in _FLOAT_DTYPES:
        raise WeightsError(f"{file}: tensor {name} has dtype {dtype}; only {', '.join(sorted(_FLOAT_DTYPES))} are read")
    if shape != expected[name]:
        raise WeightsError(f"{file}: tensor {name} is {list(shape)}; config.json asks for {list(expected[name])}")


def _expected_shapes(config: GPT2Config) -> dict[str, tuple[int, ...]]:
    n_embd, n_inner = config.n_embd, config.n_inner
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config.vocab_size, n_embd),
        "wpe.weight": (config.n_positions, n_embd),
        "ln_f.weight": (n_embd,),
        "ln_f.bias": (n_embd,),
        "lm_head.weight": (config.vocab_size, n_embd),
    }
    layer: dict[str, tuple[int, ...]] = {
        "ln_1.weight": (n_embd,),
        "ln_1.bias": (n_embd,),
        "attn.c_attn.weight": (n_embd, 3 * n_embd),
        "attn.c_attn.bias": (3 * n_embd,),
        "attn.c_proj.weight": (n_embd, n_embd),
        "attn.c_proj.bias": (n_embd,),
        "ln_2.weight": (n_embd,),
        "ln_2.bias": (n_embd,),
        "mlp.c_fc.weight": (n_embd, n_inner),
        "mlp.c_fc.bias": (n_inner,),
        "mlp.c_proj.weight": (n_inner, n_embd),
        "mlp.c_proj.bias": (n_embd,),
    }
    for index in range(config.n_layer):
        shapes |= {f"h.{index}.{name}": shape for name, shape in layer.items()}
    return shapes


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
    if config.tie_word_embeddings:
        if lm_head is not None and not torch.equal(lm_head, wte):
            raise WeightsError(
                f"{folder}: tensor lm_head.weight differs from wte.weight, but config.json says tie_word_embeddings"
            )
        return wte
    if lm_head is None:
        raise WeightsError(f"{folder}: tensor lm_head.weight is missing and config.json says the head is not tied")
    return lm_head
