"""The ops that `GPT2.forward` and the samplers call: each is a Triton or C++ kernel, or the PyTorch reference of one.

Called with the same arguments either way, so which one it is is decided op by op: `triton_ops.py` and `native_ops.py`
put kernels in where they work. What differs beyond an op (who adds the residual, how a page lies in memory) is the
`Backend`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zeroshot.model.fused_decode import MAX_FUSED_ROWS, FusedOps
from zeroshot.model.int8_linear import int8_linear_factory
from zeroshot.model.layer_norm import DeferredLayerNorm, LayerNorm, Norm, Residual, embed, embed_deferred
from zeroshot.model.linear import LinearFactory, deferred_linear_factory, linear_factory
from zeroshot_kernels.advance.reference import advance_reference
from zeroshot_kernels.bias_gelu.reference import bias_gelu_reference
from zeroshot_kernels.decode_attention.reference import decode_attention_reference
from zeroshot_kernels.kv_append.reference import kv_append_reference
from zeroshot_kernels.layer_norm.reference import layer_norm_reference
from zeroshot_kernels.lm_head_sampling.reference import lm_head_sampling_reference
from zeroshot_kernels.logit_adjustment.reference import logit_adjustment_reference
from zeroshot_kernels.logprobs.reference import logprobs_reference
from zeroshot_kernels.prefill_attention.reference import prefill_attention_reference
from zeroshot_kernels.sampling.reference import sampling_reference


@dataclass(frozen=True, slots=True)
class Ops:
    """Arguments, shapes and dtypes: the docstring of each in `zeroshot_kernels/<op>/reference.py`."""

    kv_append: Callable[..., None] = kv_append_reference
    decode_attention: Callable[..., Tensor] = decode_attention_reference
    prefill_attention: Callable[..., Tensor] = prefill_attention_reference
    layer_norm: Callable[..., tuple[Tensor, Tensor]] = layer_norm_reference
    bias_gelu: Callable[..., Tensor] = bias_gelu_reference
    lm_head_sampling: Callable[..., tuple[Tensor, Tensor, Tensor]] = lm_head_sampling_reference
    sampling: Callable[..., tuple[Tensor, Tensor, Tensor]] = sampling_reference
    logprobs: Callable[..., tuple[Tensor, Tensor]] = logprobs_reference
    logit_adjustment: Callable[..., None] = logit_adjustment_reference
    advance: Callable[..., None] = advance_reference


@dataclass(frozen=True, slots=True)
class SamplingKernels:
    """What the CPU's sampler calls for all rows at once; see `zeroshot_kernels/cpu/draw.py` and `logprobs.py`."""

    draw: Callable[..., tuple[Tensor, Tensor]]
    logprobs: Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Backend:
    """How the model runs on a kind of device.

    `plain`, for CPUs: oneDNN adds the residual in a linear layer's epilogue; a page holds its tokens one after the
    other. `native_ops.py` has the same by C++ kernels, where there is a compiler. `device`, for GPUs: LayerNorm's
    kernel adds the residual, in float32, in the pass that it makes anyway; a page holds its heads one after the other,
    so that a program reads one head's keys in one piece.
    """

    ops: Ops
    linear_factory: Callable[[Tensor], LinearFactory]
    layer_norm: Callable[[Tensor, Tensor, float], Norm]
    embed: Callable[[Tensor, Tensor, Tensor, Tensor], Residual]
    is_device: bool
    kv_block_size: int
    """Tokens in a block unless the settings say otherwise."""
    vocab_multiple: int = 1
    """The LM head gets rows of zeros up to a multiple of this, so that rows of logits are aligned in memory."""
    name: str = "PyTorch"
    layer_loop: Callable[..., Callable[..., Tensor] | None] | None = None
    """The model's layers -> what runs all of them in one call. None, of either: `GPT2.forward` loops over them."""
    sampling_kernels: SamplingKernels | None = None
    """None: the engine's sampler does without, a row at a time."""
    kernels: dict[str, str] = field(default_factory=dict)
    """Op -> "triton", or "reference: " and why. Empty where no kernel was wanted."""
    kv_dtype: torch.dtype | None = None
    """Of the KV cache; None: the model's. A CPU's kernels take float32 and float16."""
    fused: FusedOps | None = None
    """Decode steps of a few rows by these, if there are any."""
    max_fused_rows: int = MAX_FUSED_ROWS
    fused_state: str | None = None
    """ "triton", or "plain path: " and why. None where there is no such path, or it is off."""

    @property
    def states(self) -> dict[str, str]:
        """What runs as what, for `GET /health`."""
        return self.kernels | ({} if self.fused_state is None else {"fused_decode": self.fused_state})

    @property
    def uses_kernels_only(self) -> bool:
        return bool(self.kernels) and all(status == "triton" for status in self.kernels.values())


def plain_backend(*, is_int8: bool = False) -> Backend:
    return Backend(
        ops=Ops(kv_append=_kv_append_all),
        linear_factory=int8_linear_factory if is_int8 else linear_factory,
        layer_norm=LayerNorm,
        embed=embed,
        is_device=False,
        kv_block_size=16,
    )


def device_backend(
    ops: Ops,
    kernels: dict[str, str],
    fused: FusedOps | None = None,
    fused_state: str | None = None,
    *,
    kv_dtype: torch.dtype | None = None,
    max_fused_rows: int = MAX_FUSED_ROWS,
) -> Backend:
    def layer_norm(weight: Tensor, bias: Tensor, eps: float) -> DeferredLayerNorm:
        return DeferredLayerNorm(weight, bias, eps, ops.layer_norm)

    return Backend(
        ops=ops,
        linear_factory=lambda _: deferred_linear_factory(ops.bias_gelu),
        layer_norm=layer_norm,
        embed=embed_deferred,
        is_device=True,
        kv_block_size=64,
        vocab_multiple=64,
        name="Triton kernels",
        kernels=kernels,
        kv_dtype=kv_dtype,
        fused=fused,
        max_fused_rows=max_fused_rows,
        fused_state=fused_state,
    )


def _kv_append_all(key: Tensor, value: Tensor, slot_mapping: Tensor, key_cache: Tensor, value_cache: Tensor) -> None:
    """`kv_append_reference` where every slot is in the cache and the cache is contiguous: one copy each."""
    for cache, rows in ((key_cache, key), (value_cache, value)):
        cache.view(-1, *rows.shape[1:]).index_copy_(0, slot_mapping, rows.to(cache.dtype))
