"""A peer: GPT-2 as one would write it for speed in plain PyTorch. A fixed cache, SDPA, one CUDA graph, greedy."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshot.model.config import GPT2Config
from zeroshot.model.weights import GPT2Weights


class PlainModel:
    """One decode step of `batch` sequences, all at the same position, with a cache for `context` tokens each."""

    def __init__(self, config: GPT2Config, weights: GPT2Weights, batch: int, context: int) -> None:
        self.config, self.weights = config, weights
        device, dtype = weights.wte.device, weights.wte.dtype
        shape = (config.n_layer, 2, batch, config.n_head, context, config.head_dim)
        self.cache = torch.zeros(shape, device=device, dtype=dtype)
        self.token_ids = torch.zeros(batch, dtype=torch.int64, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        # Rows of logits that are aligned: cuBLAS is several times as fast as on rows of 50,257.
        self._lm_head = F.pad(weights.lm_head, (0, 0, 0, -config.vocab_size % 64))
        self._columns = torch.arange(context, device=device)

    def step(self) -> None:
        """Reads `token_ids` and `position`, leaves the next ones there: nothing else has to be given to a graph."""
        config, weights = self.config, self.weights
        eps, shape = config.layer_norm_epsilon, (config.n_embd,)
        x = weights.wte[self.token_ids] + weights.wpe[self.position]
        mask = (self._columns <= self.position)[None, None, None, :]
        for layer, (keys, values) in zip(weights.layers, self.cache, strict=True):
            h = F.layer_norm(x, shape, layer.ln_1_weight, layer.ln_1_bias, eps)
            qkv = torch.addmm(layer.attn_bias, h, layer.attn_weight)
            q, k, v = qkv.view(-1, 3, config.n_head, 1, config.head_dim).unbind(1)
            keys.index_copy_(2, self.position, k)
            values.index_copy_(2, self.position, v)
            h = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask).flatten(1)
            x = torch.addmm(x + layer.attn_proj_bias, h, layer.attn_proj_weight)
            h = F.layer_norm(x, shape, layer.ln_2_weight, layer.ln_2_bias, eps)
            h = F.gelu(torch.addmm(layer.fc_bias, h, layer.fc_weight), approximate="tanh")
            x = torch.addmm(x + layer.fc_proj_bias, h, layer.fc_proj_weight)
        x = F.layer_norm(x, shape, weights.ln_f_weight, weights.ln_f_bias, eps)
        logits = (x @ self._lm_head.t())[:, : config.vocab_size]
        self.token_ids.copy_(logits.argmax(-1))
        self.position += 1

    def recorded_step(self) -> Callable[[], None]:
        """The step as a CUDA graph; on a CPU, the step."""
        if self.token_ids.device.type != "cuda":
            return self.step
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph.replay

    def prepare(self, position: int) -> None:
        self.position.fill_(position)

    def drawn(self) -> Tensor:
        return self.token_ids
