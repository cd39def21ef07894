"""A decode step of a few sequences: one launch for the embeddings, then five a layer, where `gpt2.py` takes nine. The
same numbers, but for rounding: the LayerNorms' and attention's outputs stay in float32 here.

    embedding ─ residual ─ ln_qkv_append ─ split_attention ─ merge_projection ─ ln_fc_gelu ─ projection ─ residual
                                └─ KV cache ──┘
    residual ─ layer_norm ─ lm_head_sampling ─ advance ─ embedding of the next step

With very few rows, time goes to the boundaries between kernels rather than to the bytes that they read. So there are
few kernels here, and each has its weights in registers before the one ahead has ended. With more rows cuBLAS is faster:
these kernels work on one row after the other. The last three are the plain path's, started as early as the others:
`DeviceSampler` calls two of them. Chosen by `triton_fused.py`; called by `gpt2.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from zeroshot.model.layer_norm import Norm
from zeroshot_kernels.advance.reference import advance_reference
from zeroshot_kernels.embedding.reference import embedding_reference
from zeroshot_kernels.folded_norm import fold_norm
from zeroshot_kernels.layer_norm.reference import layer_norm_reference
from zeroshot_kernels.lm_head_sampling.reference import lm_head_sampling_reference
from zeroshot_kernels.ln_fc_gelu.reference import ln_fc_gelu_reference
from zeroshot_kernels.ln_qkv_append.reference import ln_qkv_append_reference
from zeroshot_kernels.merge_projection.reference import merge_projection_reference
from zeroshot_kernels.projection.reference import projection_reference
from zeroshot_kernels.split_attention.reference import split_attention_reference

if TYPE_CHECKING:
    from zeroshot.model.gpt2 import AttentionMetadata, KVCache, Layer, LayerCache
    from zeroshot.model.linear import Linear

MAX_FUSED_ROWS = 8


def fused_rows(n_embd: int, *, batch_invariant: bool) -> int:
    """Up to how many rows these kernels run a step.

    They work on one row after the other. On an H200 all layers of 124M took them 155, 211, 311 and 510 us at 1, 2, 4
    and 8 rows, and the plain path a step of 452 us at 1 and of 491 at 8. A row's instructions grow with the square of
    the width: of wider models only one row was measured.

    batch_invariant: a row must have the same bits alone and beside a few others. Guesses need that, since the tokens of
    a guess are checked side by side.
    """
    if batch_invariant:
        return MAX_FUSED_ROWS
    return 4 if n_embd <= 768 else 2


@dataclass(frozen=True, slots=True)
class FusedOps:
    """Arguments, shapes and dtypes: the docstring of each in `zeroshot_kernels/<op>/reference.py`."""

    embedding: Callable[..., Tensor] = embedding_reference
    ln_qkv_append: Callable[..., Tensor] = ln_qkv_append_reference
    split_attention: Callable[..., tuple[Tensor, Tensor, Tensor]] = split_attention_reference
    merge_projection: Callable[..., Tensor] = merge_projection_reference
    ln_fc_gelu: Callable[..., Tensor] = ln_fc_gelu_reference
    projection: Callable[..., Tensor] = projection_reference
    layer_norm: Callable[..., tuple[Tensor, Tensor]] = layer_norm_reference
    lm_head_sampling: Callable[..., tuple[Tensor, Tensor, Tensor]] = lm_head_sampling_reference
    advance: Callable[..., None] = advance_reference


class FoldedLinear(NamedTuple):
    """A LayerNorm and the linear layer behind it, in the order in which ops take them (`folded_norm.py`)."""

    ln_weight: Tensor
    eps: float
    weight: Tensor
    weight_sums: Tensor
    bias: Tensor

    @classmethod
    def of(cls, ln_weight: Tensor, ln_bias: Tensor, eps: float, weight: Tensor, bias: Tensor) -> "FoldedLinear":
        return cls(ln_weight, eps, weight, *fold_norm(ln_weight, ln_bias, weight, bias))


class FusedDecode:
    """The layers of a `GPT2` by `FusedOps`. Shares its weights; has no state between calls."""

    def __init__(
        self, ops: FusedOps, layers: Sequence["Layer"], ln_f: Norm, wte: Tensor, wpe: Tensor, *, max_rows: int
    ) -> None:
        self.ops, self._layers, self._ln_f, self._max_rows = ops, layers, ln_f, max_rows
        self._qkv = [_folded(layer.ln_1, layer.attn) for layer in layers]
        self._fc = [_folded(layer.ln_2, layer.fc) for layer in layers]
        self._wte, self._wpe = wte, wpe
        self._nothing = torch.zeros(MAX_FUSED_ROWS, wte.shape[1], dtype=wte.dtype, device=wte.device)

    def takes(self, num_rows: int) -> bool:
        return num_rows <= self._max_rows

    def forward(
        self, token_ids: Tensor, positions: Tensor, kv_cache: "KVCache", attention: "AttentionMetadata"
    ) -> Tensor:
        """The same as `GPT2.forward` for as many sequences as `takes` allows, with one new token each."""
        residual = self.ops.embedding(token_ids, positions, self._wte, self._wpe)
        for index in range(len(self._layers)):
            residual = self._layer(index, residual, kv_cache.layer(index), attention)
        norm = (self._ln_f.weight, self._ln_f.bias, self._ln_f.eps)
        hidden, _ = self.ops.layer_norm(self._nothing[: len(residual)], residual, *norm)
        return hidden

    def _layer(self, index: int, residual: Tensor, cache: "LayerCache", attention: "AttentionMetadata") -> Tensor:
        """residual: [num_rows, n_embd] float32."""
        ops, layer = self.ops, self._layers[index]
        query = ops.ln_qkv_append(residual, *self._qkv[index], attention.slot_mapping, *cache[:2], *cache.scales)
        lens = attention.context_lens
        tables = attention.block_tables
        splits = ops.split_attention(query, *cache[:2], tables, lens, layer.scale, *cache.scales)
        residual = ops.merge_projection(*splits, lens, layer.attn_proj.weight, layer.attn_proj.bias, residual)
        hidden = ops.ln_fc_gelu(residual, *self._fc[index])
        return ops.projection(hidden, layer.fc_proj.weight, layer.fc_proj.bias, residual)


def _folded(norm: Norm, linear: "Linear") -> FoldedLinear:
    bias = linear.weight.new_zeros(len(linear.weight)) if linear.bias is None else linear.bias
    return FoldedLinear.of(norm.weight, norm.bias, norm.eps, linear.weight, bias)
