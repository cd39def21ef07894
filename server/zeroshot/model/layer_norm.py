"""LayerNorm and the residual stream between the layers: a tensor, or a sum that nobody has added up yet."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor


class PendingSum(NamedTuple):
    """residual + addend, left to the LayerNorm that reads it: its kernel has both in registers anyway."""

    residual: Tensor  # [num_tokens, n_embd] float32; after the embedding: the model's dtype
    addend: Tensor  # [num_tokens, n_embd] the model's dtype


Residual = Tensor | PendingSum


class Norm(Protocol):
    """Takes the kind of residual that the backend's linear layers give.

    Returns the normalised rows, and the residual as a tensor: [num_tokens, n_embd] each.
    """

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, residual: Any, /) -> tuple[Tensor, Tensor]: ...


class LayerNorm:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axis (Ba et al. 2016)."""

    def __init__(self, weight: Tensor, bias: Tensor, eps: float) -> None:
        self.weight, self.bias, self.eps = weight, bias, eps

    def __call__(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        return F.layer_norm(residual, self.weight.shape, self.weight, self.bias, self.eps), residual


class DeferredLayerNorm:
    """The same of a sum: adds it up in float32, normalises, and gives both. Normalised rows have the model's dtype."""

    def __init__(
        self, weight: Tensor, bias: Tensor, eps: float, layer_norm: Callable[..., tuple[Tensor, Tensor]]
    ) -> None:
        self.weight, self.bias, self.eps = weight, bias, eps
        self._layer_norm = layer_norm

    def __call__(self, residual: PendingSum) -> tuple[Tensor, Tensor]:
        return self._layer_norm(residual.addend, residual.residual, self.weight, self.bias, self.eps)


def embed(token_ids: Tensor, positions: Tensor, wte: Tensor, wpe: Tensor) -> Tensor:
    return F.embedding(token_ids, wte) + F.embedding(positions, wpe)


def embed_deferred(token_ids: Tensor, positions: Tensor, wte: Tensor, wpe: Tensor) -> PendingSum:
    return PendingSum(F.embedding(positions, wpe), F.embedding(token_ids, wte))
