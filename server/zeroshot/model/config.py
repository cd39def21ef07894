"""The architecture of a GPT-2 checkpoint, read from its Hugging Face `config.json`.

Called by `checkpoint.py` (what shapes to expect), `gpt2.py` (what to compute) and the training recipe. An option that
changes the computation and that we don't implement is refused by name: serving a checkpoint wrongly is worse than
not serving it.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zeroshot.errors import WeightsError

ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh", "gelu", "relu", "silu", "swish", "tanh")

# Options of transformers' GPT2Config that change the forward pass and that we don't implement -> the value we accept.
_REQUIRED_VALUES: dict[str, Any] = {
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "pruned_heads": {},
}

MAX_EOS_TOKEN_IDS = 16

# transformers reads these as well (`GPT2Config.attribute_map`).
_ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}


@dataclass(frozen=True)
class GPT2Config:
    """GPT-2's own names (Radford et al. 2019; `transformers.GPT2Config`)."""

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int = 3072
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True
    bos_token_id: int = 50256
    eos_token_id: int = 50256
    """The first, where `config.json` lists several: it also stands before the beginning of a text."""
    other_eos_token_ids: tuple[int, ...] = ()
    """The others of that list, and those of `generation_config.json`. A text ends with any of them."""

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    def attention_scale(self, layer: int) -> float:
        """What `q @ k` is multiplied by in layer number `layer` (0-based)."""
        scale = self.head_dim**-0.5 if self.scale_attn_weights else 1.0
        return scale / (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale

    @classmethod
    def from_folder(cls, folder: Path) -> "GPT2Config":
        """Raises WeightsError if `folder/config.json` is missing, is no GPT-2, or asks for what we don't compute.

        A text also ends with the tokens that `generation_config.json` lists, if there is one: transformers' `generate`
        asks that file. Nothing else in it counts.
        """
        raw = _read_object(folder / "config.json")
        if raw is None:
            raise WeightsError(f"{folder} has no config.json: is it a Hugging Face GPT-2 folder?")
        config = cls.from_dict(raw, origin=str(folder / "config.json"))
        path = folder / "generation_config.json"
        ends = _token_ids(_read_object(path) or {}, "eos_token_id", config.eos_token_id, str(path))
        others = dict.fromkeys((*config.other_eos_token_ids, *ends))
        others.pop(config.eos_token_id, None)
        if len(others) >= MAX_EOS_TOKEN_IDS:
            raise WeightsError(f"{folder}: at most {MAX_EOS_TOKEN_IDS} end-of-text tokens are supported")
        return replace(config, other_eos_token_ids=tuple(others))

    @classmethod
    def from_dict(cls, raw: dict[str, Any], *, origin: str = "config") -> "GPT2Config":
        if raw.get("model_type", "gpt2") != "gpt2":
            raise WeightsError(f"{origin}: model_type is {raw['model_type']!r}; only 'gpt2' is served")
        for name, accepted in _REQUIRED_VALUES.items():
            if raw.get(name, accepted) not in (accepted, None):
                raise WeightsError(f"{origin}: {name}={raw[name]!r} is not supported (only {accepted!r})")
        raw = {_ALIASES[name]: value for name, value in raw.items() if name in _ALIASES} | raw
        n_embd = _positive_int(raw, "n_embd", cls.n_embd, origin)
        n_inner = raw.get("n_inner")
        eos_token_id, *others = _token_ids(raw, "eos_token_id", cls.eos_token_id, origin)
        config = cls(
            vocab_size=_positive_int(raw, "vocab_size", cls.vocab_size, origin),
            n_positions=_positive_int(raw, "n_positions", cls.n_positions, origin),
            n_embd=n_embd,
            n_layer=_positive_int(raw, "n_layer", cls.n_layer, origin),
            n_head=_positive_int(raw, "n_head", cls.n_head, origin),
            n_inner=4 * n_embd if n_inner is None else _positive_int(raw, "n_inner", n_inner, origin),
            activation_function=raw.get("activation_function", cls.activation_function),
            layer_norm_epsilon=_small_float(raw, "layer_norm_epsilon", cls.layer_norm_epsilon, origin),
            scale_attn_weights=_bool(raw, "scale_attn_weights", True, origin),
            scale_attn_by_inverse_layer_idx=_bool(raw, "scale_attn_by_inverse_layer_idx", False, origin),
            tie_word_embeddings=_bool(raw, "tie_word_embeddings", True, origin),
            bos_token_id=_token_ids(raw, "bos_token_id", cls.bos_token_id, origin)[0],
            eos_token_id=eos_token_id,
            other_eos_token_ids=tuple(others),
        )
        if config.n_embd % config.n_head:
            raise WeightsError(f"{origin}: n_embd={config.n_embd} is not a multiple of n_head={config.n_head}")
        if config.activation_function not in ACTIVATIONS:
            raise WeightsError(
                f"{origin}: activation_function={config.activation_function!r} is not supported "
                f"(one of {', '.join(ACTIVATIONS)})"
            )
        return config

    def to_dict(self) -> dict[str, Any]:
        """A `config.json` that transformers reads back as the same model."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        others = fields.pop("other_eos_token_ids")
        if others:
            fields["eos_token_id"] = [self.eos_token_id, *others]
        return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", **fields}


def _positive_int(raw: dict[str, Any], name: str, default: int, origin: str) -> int:
    value = raw.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise WeightsError(f"{origin}: {name} must be a positive whole number, not {value!r}")
    return value


def _small_float(raw: dict[str, Any], name: str, default: float, origin: str) -> float:
    value = raw.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise WeightsError(f"{origin}: {name} must be a number between 0 and 1, not {value!r}")
    return float(value)


def _read_object(path: Path) -> dict[str, Any] | None:
    """None if the file is not there."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise WeightsError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(raw, dict):
        raise WeightsError(f"{path} must hold a JSON object")
    return raw


def _bool(raw: dict[str, Any], name: str, default: bool, origin: str) -> bool:
    value = raw.get(name, default)
    if not isinstance(value, bool):
        raise WeightsError(f"{origin}: {name} must be true or false, not {value!r}")
    return value


def _token_ids(raw: dict[str, Any], name: str, default: int, origin: str) -> list[int]:
    """One or several, each once, in their order."""
    value = raw.get(name)
    values = value if isinstance(value, list) else [value]
    if value is None or not values:
        return [default]
    if any(isinstance(token_id, bool) or not isinstance(token_id, int) for token_id in values):
        raise WeightsError(f"{origin}: {name} must be a token id or a list of them, not {value!r}")
    distinct = list(dict.fromkeys(values))
    if len(distinct) > MAX_EOS_TOKEN_IDS:
        raise WeightsError(f"{origin}: {name} has {len(distinct)} token ids; at most {MAX_EOS_TOKEN_IDS} are supported")
    return distinct
