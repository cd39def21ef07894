"""Merging attention's splits and projecting onto the residual stream, in PyTorch: the oracle for the kernel."""

import torch
from torch import Tensor

from zeroshot_kernels.projection.reference import projection_reference
from zeroshot_kernels.split_attention.reference import SPLIT_SIZE


def merge_projection_reference(
    partial_output: Tensor,
    partial_max: Tensor,
    partial_sum: Tensor,
    context_lens: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor,
) -> Tensor:
    """residual + attention @ weight^T + bias, where attention is what the splits come to together.

    partial_output: [num_rows or more, num_splits, n_head, head_dim], partial_max, partial_sum: [..., n_head], as
    `split_attention_reference` has them; those past a context may hold anything. context_lens: [num_rows]; weight:
    [n_out, n_head * head_dim]; bias: [n_out]; residual: [num_rows, n_out]. Computed in float32 (float64 if the residual
    is).
    """
    num_rows, num_splits = len(residual), partial_max.shape[1]
    used = torch.arange(num_splits, device=residual.device) * SPLIT_SIZE < context_lens[:, None]
    largest = partial_max[:num_rows].masked_fill(~used[..., None], -torch.inf)
    weights = torch.exp2(largest - largest.amax(1, keepdim=True)).masked_fill(~used[..., None], 0.0)
    total = (weights * partial_sum[:num_rows].masked_fill(~used[..., None], 0.0)).sum(1)
    output = partial_output[:num_rows].masked_fill(~used[..., None, None], 0.0)
    attended = (weights[..., None] * output).sum(1) / torch.where(total == 0, 1.0, total)[..., None]
    return projection_reference(attended.flatten(1), weight, bias, residual)
