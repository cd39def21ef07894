"""`GPT2.forward`'s loop over its layers, by one call to the C++ kernels; and the LayerNorm of such layers."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from zeroshot.model.gpt2 import AttentionMetadata, KVCache, Layer
from zeroshot.model.layer_norm import Norm
from zeroshot.model.linear import TANH_GELUS
from zeroshot_kernels.cpu.layer_norm import layer_norm
from zeroshot_kernels.cpu.layers import Layers, LayerWeights, NormWeights

LayerLoop = Callable[[Tensor, KVCache, AttentionMetadata], Tensor]


class NativeLayerNorm:
    """As `layer_norm.LayerNorm`: returns the normalised rows, and the residual as it came."""

    def __init__(self, weight: Tensor, bias: Tensor, eps: float) -> None:
        self.weight, self.bias, self.eps = weight, bias, eps

    def __call__(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        return layer_norm(residual, self.weight, self.bias, self.eps), residual


def native_layer_loop(layers: list[Layer]) -> LayerLoop | None:
    """layers: built by the native backend. None if they have another activation than GPT-2's."""
    if any(layer.activation not in TANH_GELUS for layer in layers):
        return None
    native = Layers([_weights(layer) for layer in layers])

    def run(stream: Tensor, kv_cache: KVCache, attention: AttentionMetadata) -> Tensor:
        """stream: [num_tokens, n_embd], changed in place."""
        queries: Any = attention.query_lens  # lists: this is no GPU
        contexts: Any = attention.context_lens
        tokens = attention.slot_mapping, attention.block_tables
        native.run(stream, kv_cache.key, kv_cache.value, *tokens, queries, contexts, attention.num_decodes)
        return stream

    return run


def _weights(layer: Any) -> LayerWeights:
    """The linear layers of this backend have packed weights to show, which others don't."""
    return LayerWeights(
        ln_1=_norm(layer.ln_1),
        ln_2=_norm(layer.ln_2),
        attn=layer.attn.weights,
        attn_proj=layer.attn_proj.weights,
        fc=layer.fc.weights,
        fc_proj=layer.fc_proj.weights,
        scale=layer.scale,
    )


def _norm(norm: Norm) -> NormWeights:
    return NormWeights(norm.weight, norm.bias, norm.eps)
