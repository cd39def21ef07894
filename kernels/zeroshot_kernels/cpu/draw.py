"""Drawing tokens by the C++ kernel."""

import torch
from torch import Tensor

from zeroshot_kernels.cpu.library import library


def draw(logits: Tensor, temperatures: Tensor, seeds: Tensor, choices: Tensor, positions: Tensor) -> Tensor:
    """What `sample_reference` draws of each row without filters, int64 [num_rows], but for the rounding of logarithms.

    logits: [num_rows, vocab_size] float32, finite, rows contiguous; temperatures: [num_rows] float32, above zero;
    seeds, choices, positions: [num_rows] int64, the last one how many tokens precede the one that is drawn.
    """
    tokens = torch.empty(len(logits), dtype=torch.int64)
    largest = logits.amax(1)
    library().zeroshot_draw(
        logits.data_ptr(), largest.data_ptr(), temperatures.data_ptr(), seeds.data_ptr(), choices.data_ptr(),
        positions.data_ptr(), tokens.data_ptr(), *logits.shape, logits.stride(0),
    )  # fmt: skip
    return tokens
