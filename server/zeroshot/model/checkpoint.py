"""Where a checkpoint lies and whether it can be served, without loading it and without torch.

`load_weights` reads tensors through this, and `zeroshot serve` calls `check_checkpoint` before it starts anything.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from zeroshot.errors import WeightsError
from zeroshot.model.config import GPT2Config

# Causal masks that old checkpoints stored as buffers: no weights, and we make our own.
_STRAY_BUFFER = re.compile(r"^h\.\d+\.attn\.(bias|masked_bias)$")
_FLOAT_DTYPES = ("BF16", "F16", "F32", "F64")
_CONVERT = (
    "python -c \"from transformers import GPT2LMHeadModel as M; M.from_pretrained('{folder}')"
    ".save_pretrained('{folder}')\""
)


class StoredTensor(NamedTuple):
    """A tensor of a checkpoint that has been checked: its name in the file, and ours (no `transformer.` prefix)."""

    file: Path
    stored_name: str
    name: str


def check_checkpoint(folder: Path, config: GPT2Config) -> list[StoredTensor]:
    """All tensors to load. Raises WeightsError for a missing, unexpected, misshapen or unreadable one, or a pickle."""
    expected = _expected_shapes(config)
    tensors = [tensor for file in _safetensors_files(folder) for tensor in _read_header(file, expected)]
    names = [tensor.name for tensor in tensors]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise WeightsError(f"{folder}: tensor {twice} is there twice")
    optional = {"lm_head.weight"} if config.tie_word_embeddings else set()
    missing = sorted(expected.keys() - set(names) - optional)
    if missing:
        raise WeightsError(f"{folder}: tensor {missing[0]} is missing ({len(missing)} missing in all)")
    return tensors


def _safetensors_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise WeightsError(f"{index} is not a valid shard index: {error!r}") from None
        if any(not isinstance(name, str) or Path(name).name != name for name in names):
            raise WeightsError(f"{index} names a file outside its folder")
    else:
        names = ["model.safetensors"]
    missing = [name for name in names if not (folder / name).is_file()]
    if not missing:
        return [folder / name for name in names]
    pickled = sorted([*folder.glob("*.bin"), *folder.glob("*.pt")])
    if pickled and not index.exists():
        raise WeightsError(
            f"{pickled[0]} is a pickle, which can run code when opened; only safetensors are read. "
            f"If you trust it, convert it once: {_CONVERT.format(folder=folder)}"
        )
    raise WeightsError(f"{folder} has no {missing[0]}")


def _read_header(file: Path, expected: dict[str, tuple[int, ...]]) -> Iterator[StoredTensor]:
    try:
        with safe_open(file, framework="numpy") as opened:
            for stored_name in opened.keys():  # noqa: SIM118 - not a dict
                name = stored_name.removeprefix("transformer.")
                if _STRAY_BUFFER.match(name):
                    continue
                header = opened.get_slice(stored_name)
                _check(file, name, header.get_dtype(), tuple(header.get_shape()), expected)
                yield StoredTensor(file, stored_name, name)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file} is not a valid safetensors file: {error}") from None


def _check(file: Path, name: str, dtype: str, shape: tuple[int, ...], expected: dict[str, tuple[int, ...]]) -> None:
    if name not in expected:
        raise WeightsError(f"{file}: unexpected tensor {name}")
    if dtype not in _FLOAT_DTYPES:
        raise WeightsError(f"{file}: tensor {name} has dtype {dtype}; only {', '.join(_FLOAT_DTYPES)} are read")
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
