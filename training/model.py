"""GPT-2 in plain PyTorch (Radford et al. 2019, section 2.3), for training only; the server has its own forward pass.

Parameter names and shapes are those of Hugging Face's `GPT2LMHeadModel`, down to the [in, out] layout of its
projections, so that exporting is renaming nothing.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeroshot.model.config import GPT2Config

INIT_STD = 0.02


class Projection(nn.Module):
    """`x @ weight + bias` with weight [in, out], as in OpenAI's and Hugging Face's checkpoints (`Conv1D` there)."""

    def __init__(self, n_in: int, n_out: int, *, std: float = INIT_STD) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_in, n_out).normal_(std=std))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.t(), self.bias)


def residual_std(n_layer: int) -> float:
    """Initial standard deviation of a projection that writes into the residual stream.

    The paper scales "the weights of residual layers at initialization by a factor of 1/sqrt(N) where N is the number
    of residual layers" (section 2.3). A block has two, attention and MLP, so N = 2 * n_layer; with the base of 0.02
    from OpenAI's code the sum of all N branches then has the variance of one.
    """
    return INIT_STD / math.sqrt(2 * n_layer)


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.n_head, self.head_dim = config.n_head, config.head_dim
        self.c_attn = Projection(config.n_embd, 3 * config.n_embd)
        self.c_proj = Projection(config.n_embd, config.n_embd, std=residual_std(config.n_layer))

    def forward(self, x: Tensor) -> Tensor:
        """x: [rows, length, n_embd] -> the same shape."""
        rows, length, n_embd = x.shape
        heads = self.c_attn(x).view(rows, length, 3, self.n_head, self.head_dim)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each [rows, n_head, length, head_dim]
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: Tensor = self.c_proj(mixed.transpose(1, 2).reshape(rows, length, n_embd))
        return out


class MLP(nn.Module):
    """Two projections around the tanh form of GELU, which OpenAI's code uses (`gelu_new`)."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = Projection(config.n_embd, config.n_inner)
        self.c_proj = Projection(config.n_inner, config.n_embd, std=residual_std(config.n_layer))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """LayerNorm moved to the input of each sub-block (pre-LN), as in section 2.3."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class GPT2(nn.Module):
    """GPT-2 over a compact vocabulary whose last row stands for all tokens that have no row of their own.

    num_shared: how many tokens share that row. After export the softmax holds that many copies of it, so its logit
    is raised by log(num_shared) here: the loss that is minimised is exactly the exported model's loss, and the shared
    logit is pushed low enough for all copies together never to be sampled.
    """

    def __init__(self, config: GPT2Config, *, num_shared: int = 1) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        nn.init.normal_(self.wte.weight, std=INIT_STD)
        nn.init.normal_(self.wpe.weight, std=INIT_STD / 2)  # OpenAI's code: 0.01 for positions, 0.02 for tokens
        log_copies = torch.zeros(config.vocab_size)
        log_copies[-1] = math.log(num_shared)
        self.log_copies: Tensor
        self.register_buffer("log_copies", log_copies, persistent=False)

    def hidden(self, tokens: Tensor, first_position: int | Tensor = 0) -> Tensor:
        """tokens: [rows, length] -> final hidden states [rows, length, n_embd].

        first_position: where each row starts in the context; one number, or [rows, 1].
        """
        positions = torch.arange(tokens.shape[1], device=tokens.device) + first_position
        x = self.wte(tokens) + self.wpe(positions)
        for block in self.h:
            x = block(x)
        out: Tensor = self.ln_f(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden: [..., n_embd] -> logits [..., vocab_size], through the tied embedding."""
        return F.linear(hidden, self.wte.weight)

    def loss_sum(self, tokens: Tensor, weights: Tensor, first_position: int | Tensor = 0) -> Tensor:
        """The weighted sum of the cross-entropies of all targets in nats.

        tokens, weights: [rows, length]; `weights[:, t]` is for predicting `tokens[:, t]` from what came before. Only
        targets with a weight reach the vocabulary projection.
        """
        hidden = self.hidden(tokens[:, :-1], first_position)
        is_target = weights[:, 1:] > 0
        logits = F.linear(hidden[is_target], self.wte.weight, self.log_copies).float()
        losses = F.cross_entropy(logits, tokens[:, 1:][is_target], reduction="none")
        return (losses * weights[:, 1:][is_target]).sum()
