"""The forward pass of GPT-2 over a paged KV cache. Read it top to bottom.

Pre-LayerNorm transformer blocks (Radford et al. 2019, section 2.3). Tokens of many sequences are packed into one
[num_tokens, n_embd] matrix: whatever works on a single token (embeddings, LayerNorm, linear layers) never sees where
one sequence ends; attention does, through `AttentionMetadata`. Called by `engine/model_runner.py`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshot.model.config import GPT2Config
from zeroshot.model.linear import LinearFactory, linear_factory
from zeroshot.model.weights import GPT2Weights, LayerWeights
from zeroshot_kernels.decode_attention.reference import decode_attention_reference
from zeroshot_kernels.prefill_attention.reference import prefill_attention_reference


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys and values of all layers: each [n_layer, num_blocks, block_size, n_head, head_dim]."""

    key: Tensor
    value: Tensor

    @classmethod
    def allocate(
        cls, config: GPT2Config, num_blocks: int, block_size: int, *, dtype: torch.dtype, device: torch.device
    ) -> "KVCache":
        shape = (config.n_layer, num_blocks, block_size, config.n_head, config.head_dim)
        # Zeros cost nothing until touched: on a CPU the operating system hands out pages as sequences arrive.
        return cls(torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))


@dataclass(frozen=True, slots=True)
class AttentionMetadata:
    """Where one sequence ends and the next begins. Decoding sequences come first, one token each; then prefills."""

    slot_mapping: Tensor  # [num_tokens] int64: flat KV position (block * block_size + offset) of each token
    block_tables: Tensor  # [num_seqs, max_blocks] int64, padded with a block of the same sequence
    context_lens: list[int]  # tokens of each sequence in the cache after this step
    query_lens: list[int]  # tokens of each sequence in this step
    num_decodes: int


class GPT2:
    """The weights, ready to run. No state between calls: all of that is in the KV cache."""

    def __init__(self, config: GPT2Config, weights: GPT2Weights) -> None:
        self.config = config
        self.wte = weights.wte
        self.wpe = weights.wpe
        linear = linear_factory(weights.lm_head.t())
        self.layers = [Layer(config, layer, index, linear) for index, layer in enumerate(weights.layers)]
        self.ln_f = LayerNorm(weights.ln_f_weight, weights.ln_f_bias, config.layer_norm_epsilon)
        self.lm_head = linear(weights.lm_head.t(), None)

    @property
    def dtype(self) -> torch.dtype:
        return self.wte.dtype

    @property
    def device(self) -> torch.device:
        return self.wte.device

    def forward(self, token_ids: Tensor, positions: Tensor, kv_cache: KVCache, attention: AttentionMetadata) -> Tensor:
        """token_ids, positions: [num_tokens] int64. Writes the tokens' keys and values into the cache.

        Returns the final hidden states, [num_tokens, n_embd], which `compute_logits` turns into logits.
        """
        hidden = F.embedding(token_ids, self.wte) + F.embedding(positions, self.wpe)
        for index, layer in enumerate(self.layers):
            hidden = layer.forward(hidden, kv_cache.key[index], kv_cache.value[index], attention)
        return self.ln_f(hidden)

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """hidden: [num_rows, n_embd] -> [num_rows, vocab_size] float32."""
        return self.lm_head(hidden).float()


class Layer:
    """One transformer block: x + attention(ln_1(x)), then x + mlp(ln_2(x))."""

    def __init__(self, config: GPT2Config, weights: LayerWeights, index: int, linear: LinearFactory) -> None:
        self.n_head, self.head_dim = config.n_head, config.head_dim
        self.scale = config.attention_scale(index)
        self.activation = config.activation_function
        self.ln_1 = LayerNorm(weights.ln_1_weight, weights.ln_1_bias, config.layer_norm_epsilon)
        self.attn = linear(weights.attn_weight, weights.attn_bias)
        self.attn_proj = linear(weights.attn_proj_weight, weights.attn_proj_bias)
        self.ln_2 = LayerNorm(weights.ln_2_weight, weights.ln_2_bias, config.layer_norm_epsilon)
        self.fc = linear(weights.fc_weight, weights.fc_bias)
        self.fc_proj = linear(weights.fc_proj_weight, weights.fc_proj_bias)

    def forward(self, hidden: Tensor, key_cache: Tensor, value_cache: Tensor, attention: AttentionMetadata) -> Tensor:
        attended = self._attend(self.attn(self.ln_1(hidden)), key_cache, value_cache, attention)
        hidden = self.attn_proj.add_to(hidden, attended)
        return self.fc_proj.add_to(hidden, self.fc(self.ln_2(hidden), self.activation))

    def _attend(self, qkv: Tensor, key_cache: Tensor, value_cache: Tensor, attention: AttentionMetadata) -> Tensor:
        """qkv: [num_tokens, 3 * n_embd] -> [num_tokens, n_embd]."""
        query, key, value = qkv.view(-1, 3, self.n_head, self.head_dim).unbind(1)
        key_cache.view(-1, self.n_head, self.head_dim).index_copy_(0, attention.slot_mapping, key)
        value_cache.view(-1, self.n_head, self.head_dim).index_copy_(0, attention.slot_mapping, value)
        split = attention.num_decodes
        outputs = []
        if split:
            outputs.append(
                decode_attention_reference(
                    query[:split],
                    key_cache,
                    value_cache,
                    attention.block_tables[:split],
                    attention.context_lens[:split],
                    self.scale,
                )
            )
        if split < len(attention.context_lens):
            outputs.append(
                prefill_attention_reference(
                    query[split:],
                    key_cache,
                    value_cache,
                    attention.block_tables[split:],
                    attention.query_lens[split:],
                    attention.context_lens[split:],
                    self.scale,
                )
            )
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return output.reshape(-1, self.n_head * self.head_dim)


class LayerNorm:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axis (Ba et al. 2016)."""

    def __init__(self, weight: Tensor, bias: Tensor, eps: float) -> None:
        self.weight, self.bias, self.eps = weight, bias, eps

    def __call__(self, hidden: Tensor) -> Tensor:
        return F.layer_norm(hidden, self.weight.shape, self.weight, self.bias, self.eps)
