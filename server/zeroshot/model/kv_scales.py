"""Getting a model ready for a KV cache in FP8 (E4M3), from its weights alone: no text is run, and no value overflows.

A key is k = W (g * z) + c, z the row as LayerNorm has centred and scaled it, and c the same for all tokens. So:

* `centred` leaves c out, and attention does not notice. For keys, q @ c shifts all scores of a query alike, which
  softmax ignores. For values, attention gives c back unchanged, since its weights add up to 1: so c goes into the bias
  of the projection that follows. What is left to be rounded is what tells tokens apart.
* z has a norm of at most sqrt(n_embd), so by Cauchy and Schwarz |k| <= sqrt(n_embd) |W * g|, whatever the text. That is
  several times what keys usually are, and costs nothing: E4M3's steps grow with its values, over 15 powers of two.
  `kv_scales` gives each head the least power of two that brings its bound to 448; dividing by it rounds nothing.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zeroshot_kernels.paged_cache import E4M3_MAX

if TYPE_CHECKING:
    from zeroshot.model.gpt2 import Layer
    from zeroshot.model.weights import GPT2Weights, LayerWeights

_ROUNDING = 1.02
"""The bound is for exact arithmetic: LayerNorm's output and the product are rounded to the model's dtype."""


def centred(weights: "GPT2Weights") -> "GPT2Weights":
    """The same model, but for rounding, whose keys and values have no part that all tokens share."""
    return replace(weights, layers=tuple(_centred_layer(layer) for layer in weights.layers))


def _centred_layer(layer: "LayerWeights") -> "LayerWeights":
    n_embd, dtype = len(layer.attn_weight), layer.attn_bias.dtype
    shared = layer.ln_1_bias.float() @ layer.attn_weight.float() + layer.attn_bias.float()
    bias = layer.attn_bias.float().clone()
    bias[n_embd:] -= shared[n_embd:]
    proj_bias = layer.attn_proj_bias.float() + shared[2 * n_embd :] @ layer.attn_proj_weight.float()
    return replace(layer, attn_bias=bias.to(dtype), attn_proj_bias=proj_bias.to(dtype))


def kv_scales(layer: "Layer", n_head: int) -> Tensor:
    """[{K, V}, n_head] float32, powers of two."""
    weight, bias = layer.attn.weight.float(), layer.attn.bias
    if bias is None:
        raise ValueError("the QKV projection has no bias")
    norm_weight, norm_bias = layer.ln_1.weight.float(), layer.ln_1.bias.float()
    centre = weight @ norm_bias + bias.float()
    bound = weight.shape[1] ** 0.5 * (weight * norm_weight).norm(dim=1) + centre.abs()
    largest = bound.view(3, n_head, -1)[1:].amax(-1)
    exponent = torch.log2(largest.clamp(min=1e-30) * _ROUNDING / E4M3_MAX).ceil()
    return torch.exp2(exponent)
