"""The forward pass of GPT-2 over a paged KV cache. Read it top to bottom.

Pre-LayerNorm transformer blocks (Radford et al. 2019, section 2.3). Tokens of many sequences are packed into one
[num_tokens, n_embd] matrix: whatever works on a single token (embeddings, LayerNorm, linear layers) never sees where
one sequence ends; attention does, through `AttentionMetadata`. Called by the runners in `engine/`.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshot.model.config import GPT2Config
from zeroshot.model.fused_decode import FusedDecode, FusedOps
from zeroshot.model.kv_scales import centred, kv_scales
from zeroshot.model.layer_norm import Residual
from zeroshot.model.linear import LinearFactory
from zeroshot.model.ops import Backend, Ops, plain_backend
from zeroshot.model.weights import GPT2Weights, LayerWeights
from zeroshot_kernels.cpu.huge_pages import HugePages
from zeroshot_kernels.paged_cache import indexable


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys and values of all layers: each [n_layer, num_blocks, block_size, n_head, head_dim]."""

    key: Tensor
    value: Tensor
    scales: Tensor | None = None
    """[n_layer, {K, V}, n_head] float32, of a cache in FP8."""

    def clear(self, block_ids: list[int]) -> None:
        """Zero the blocks in all layers: attention reads whole blocks, and even a masked NaN would spread."""
        for content in (self.key, self.value):
            indexable(content)[:, block_ids] = 0

    def copy_blocks(self, copies: list[tuple[int, int]]) -> None:
        """(source, target) of each, in all layers; a source may be the target of another copy, and is read before."""
        if copies:
            sources, targets = (list(blocks) for blocks in zip(*copies, strict=True))
            for content in (self.key, self.value):
                indexable(content)[:, targets] = indexable(content)[:, sources]

    def layer(self, index: int) -> "LayerCache":
        scales = () if self.scales is None else self.scales[index].unbind()
        return LayerCache(self.key[index], self.value[index], scales)

    @classmethod
    def allocate(cls, config: GPT2Config, num_blocks: int, block_size: int, *, dtype: torch.dtype) -> "KVCache":
        """On the CPU. It costs nothing until touched: the operating system hands out memory as sequences arrive."""
        shape = (config.n_layer, num_blocks, block_size, config.n_head, config.head_dim)
        return cls(HugePages().zeros(*shape, dtype=dtype), HugePages().zeros(*shape, dtype=dtype))

    @classmethod
    def allocate_by_head(
        cls, config: GPT2Config, num_blocks: int, block_size: int, *, dtype: torch.dtype, device: torch.device
    ) -> "KVCache":
        """In memory [n_layer, num_blocks, n_head, {K, V}, block_size, head_dim]: a head's page is one piece, 16 KB."""
        shape = (config.n_layer, num_blocks, config.n_head, 2, block_size, config.head_dim)
        key, value = torch.zeros(shape, dtype=dtype, device=device).permute(3, 0, 1, 4, 2, 5)
        return cls(key, value)


class LayerCache(NamedTuple):
    """One layer's part of a `KVCache`."""

    key: Tensor  # [num_blocks, block_size, n_head, head_dim], and so are values
    value: Tensor
    scales: tuple[Tensor, ...]  # keys' and values', [n_head] each, if they are in FP8: ops take them as they come


@dataclass(frozen=True, slots=True)
class AttentionMetadata:
    """Where one sequence ends and the next begins. Decoding sequences come first, one token each; then prefills."""

    slot_mapping: Tensor  # [num_tokens] int: flat KV position (block * block_size + offset) of each token
    block_tables: Tensor  # [num_seqs, max_blocks] int, padded with a block of the same sequence
    context_lens: list[int] | Tensor  # tokens of each sequence in the cache after this step; a tensor: int32
    query_lens: list[int] | Tensor  # tokens of each sequence in this step; a tensor: int32
    num_decodes: int


class GPT2:
    """The weights, ready to run. No state between calls: all of that is in the KV cache."""

    def __init__(self, config: GPT2Config, weights: GPT2Weights, backend: Backend | None = None) -> None:
        self.config = config
        self.backend = backend or plain_backend()
        if self.backend.kv_dtype == torch.float8_e4m3fn:
            weights = centred(weights)
        self.wpe = weights.wpe
        lm_head = _padded_rows(weights.lm_head, self.backend.vocab_multiple)
        self.wte = lm_head[: config.vocab_size] if weights.lm_head is weights.wte else weights.wte
        linear = self.backend.linear_factory(lm_head.t())
        layers = enumerate(weights.layers)
        self.layers = [Layer(config, layer, index, linear, self.backend) for index, layer in layers]
        self.layer_loop = self.backend.layer_loop(self.layers) if self.backend.layer_loop is not None else None
        self.ln_f = self.backend.layer_norm(weights.ln_f_weight, weights.ln_f_bias, config.layer_norm_epsilon)
        self.lm_head = linear(lm_head.t(), None)
        fused = self.backend.fused
        self._fused = (
            None
            if fused is None
            else FusedDecode(fused, self.layers, self.ln_f, self.wte, self.wpe, max_rows=self.backend.max_fused_rows)
        )

    @property
    def dtype(self) -> torch.dtype:
        return self.wte.dtype

    @property
    def kv_dtype(self) -> torch.dtype:
        return self.backend.kv_dtype or self.dtype

    @property
    def device(self) -> torch.device:
        return self.wte.device

    def allocate_kv_cache(self, num_blocks: int, block_size: int) -> KVCache:
        if not self.backend.is_device:
            return KVCache.allocate(self.config, num_blocks, block_size, dtype=self.kv_dtype)
        cache = KVCache.allocate_by_head(self.config, num_blocks, block_size, dtype=self.kv_dtype, device=self.device)
        if self.kv_dtype != torch.float8_e4m3fn:
            return cache
        scales = [kv_scales(layer, self.config.n_head) for layer in self.layers]
        return replace(cache, scales=torch.stack(scales))

    def forward(self, token_ids: Tensor, positions: Tensor, kv_cache: KVCache, attention: AttentionMetadata) -> Tensor:
        """token_ids, positions: [num_tokens] int64. Writes the tokens' keys and values into the cache.

        Returns the final hidden states, [num_tokens, n_embd], which `compute_logits` turns into logits.
        """
        stream = self.backend.embed(token_ids, positions, self.wte, self.wpe)
        if self.layer_loop is not None:
            stream = self.layer_loop(stream, kv_cache, attention)
        else:
            for index, layer in enumerate(self.layers):
                stream = layer.forward(stream, kv_cache.layer(index), attention)
        hidden, _ = self.ln_f(stream)
        return hidden

    def decode(self, token_ids: Tensor, positions: Tensor, kv_cache: KVCache, attention: AttentionMetadata) -> Tensor:
        """`forward` where every sequence has one new token: a few of them by kernels made for that, if there are."""
        run = self._fused_of(len(token_ids)) or self
        return run.forward(token_ids, positions, kv_cache, attention)

    def decode_ops(self, num_rows: int) -> Ops | FusedOps:
        """What `decode` ran so many rows by. Its lm_head_sampling and advance may follow at once, and nothing else."""
        fused = self._fused_of(num_rows)
        return self.backend.ops if fused is None else fused.ops

    def _fused_of(self, num_rows: int) -> FusedDecode | None:
        return self._fused if self._fused is not None and self._fused.takes(num_rows) else None

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """hidden: [num_rows, n_embd] -> [num_rows, vocab_size] float32."""
        return self.lm_head.in_float32(hidden)[:, : self.config.vocab_size]

    def greedy(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """hidden: [num_rows, n_embd] -> each row's token with the largest logit, the first of equal ones, [num_rows]
        int64; and whether all its logits are finite, [num_rows] bool. A backend may do without storing logits.
        """
        return self.lm_head.greedy(hidden, self.config.vocab_size)


class Layer:
    """One transformer block: x + attention(ln_1(x)), then x + mlp(ln_2(x))."""

    def __init__(
        self, config: GPT2Config, weights: LayerWeights, index: int, linear: LinearFactory, backend: Backend
    ) -> None:
        self.n_head, self.head_dim = config.n_head, config.head_dim
        self.scale = config.attention_scale(index)
        self.activation = config.activation_function
        self.ops = backend.ops
        self.ln_1 = backend.layer_norm(weights.ln_1_weight, weights.ln_1_bias, config.layer_norm_epsilon)
        self.attn = linear(weights.attn_weight, weights.attn_bias)
        self.attn_proj = linear(weights.attn_proj_weight, weights.attn_proj_bias)
        self.ln_2 = backend.layer_norm(weights.ln_2_weight, weights.ln_2_bias, config.layer_norm_epsilon)
        self.fc = linear(weights.fc_weight, weights.fc_bias)
        self.fc_proj = linear(weights.fc_proj_weight, weights.fc_proj_bias)

    def forward(self, stream: Residual, cache: LayerCache, attention: AttentionMetadata) -> Residual:
        """stream: the residual stream, [num_tokens, n_embd]."""
        hidden, residual = self.ln_1(stream)
        hidden = self.attn(hidden)
        hidden = self._attend(hidden, cache, attention)
        stream = self.attn_proj.add_to(residual, hidden)
        hidden, residual = self.ln_2(stream)
        hidden = self.fc(hidden, self.activation)
        return self.fc_proj.add_to(residual, hidden)

    def _attend(self, qkv: Tensor, cache: LayerCache, attention: AttentionMetadata) -> Tensor:
        """qkv: [num_tokens, 3 * n_embd] -> [num_tokens, n_embd]."""
        query, key, value = qkv.view(-1, 3, self.n_head, self.head_dim).unbind(1)
        caches, scales = cache[:2], cache.scales
        self.ops.kv_append(key, value, attention.slot_mapping, *caches, *scales)
        tables, lens, query_lens = attention.block_tables, attention.context_lens, attention.query_lens
        split = attention.num_decodes
        outputs = []
        if split:
            decodes = (tables[:split], lens[:split])
            outputs.append(self.ops.decode_attention(query[:split], *caches, *decodes, self.scale, *scales))
        if split < len(lens):
            rest = (tables[split:], query_lens[split:], lens[split:])
            outputs.append(self.ops.prefill_attention(query[split:], *caches, *rest, self.scale, *scales))
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return output.reshape(-1, self.n_head * self.head_dim)


def _padded_rows(weight: Tensor, multiple: int) -> Tensor:
    """weight: [num_rows, width], with rows of zeros appended up to a multiple."""
    return F.pad(weight, (0, 0, 0, -len(weight) % multiple)) if len(weight) % multiple else weight
