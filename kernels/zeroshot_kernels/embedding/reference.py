"""Embeddings of tokens and positions in PyTorch: the oracle for the kernel."""

import torch
from torch import Tensor


def embedding_reference(token_ids: Tensor, positions: Tensor, wte: Tensor, wpe: Tensor) -> Tensor:
    """wte[token_ids] + wpe[positions], in float32 (float64 if the embeddings are): [num_rows, n_embd].

    token_ids, positions: [num_rows] int64; wte: [vocab_size, n_embd]; wpe: [n_positions, n_embd].
    """
    dtype = torch.promote_types(wte.dtype, torch.float32)
    return wte[token_ids].to(dtype) + wpe[positions].to(dtype)
