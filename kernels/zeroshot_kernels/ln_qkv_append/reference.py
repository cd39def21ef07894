"""LayerNorm, QKV projection and KV append in PyTorch: the oracle for the kernel."""

from torch import Tensor

from zeroshot_kernels.folded_norm import folded_linear_reference
from zeroshot_kernels.kv_append.reference import kv_append_reference


def ln_qkv_append_reference(
    residual: Tensor,
    ln_weight: Tensor,
    eps: float,
    weight: Tensor,
    weight_sums: Tensor,
    bias: Tensor,
    slot_mapping: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    key_scales: Tensor | None = None,
    value_scales: Tensor | None = None,
) -> Tensor:
    """q, k, v of a LayerNorm and a linear layer; k and v go into the caches. Returns q.

    residual: [num_rows, n_embd]; ln_weight: [n_embd]; weight: [3 * n_embd, n_embd]; weight_sums, bias: [3 * n_embd], of
    `fold_norm`; q: [num_rows, n_head, head_dim]; slot_mapping, the caches and their scales: see `kv_append_reference`.
    Computed in float32 (float64 if the residual is).
    """
    qkv = folded_linear_reference(residual, ln_weight, eps, weight, weight_sums, bias)
    query, key, value = qkv.view(-1, 3, *key_cache.shape[2:]).unbind(1)
    if key_scales is None:
        key, value = key.to(weight.dtype), value.to(weight.dtype)
    kv_append_reference(key, value, slot_mapping, key_cache, value_cache, key_scales, value_scales)
    return query.to(weight.dtype)
