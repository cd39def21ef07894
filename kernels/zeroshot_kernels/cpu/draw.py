"""Drawing tokens by the C++ kernel."""

import ctypes
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from zeroshot_kernels.cpu.library import library
from zeroshot_kernels.sampling.reference import Adjustment


class _Adjustment(ctypes.Structure):
    _fields_ = (
        ("biased_ids", ctypes.c_void_p),
        ("biases", ctypes.c_void_p),
        ("num_biased", ctypes.c_int64),
        ("token_ids", ctypes.c_void_p),
        ("num_tokens", ctypes.c_int64),
        ("num_prompt_tokens", ctypes.c_int64),
        ("repetition_penalty", ctypes.c_float),
        ("presence_penalty", ctypes.c_float),
        ("frequency_penalty", ctypes.c_float),
        ("forbidden_ids", ctypes.c_void_p),
        ("num_forbidden", ctypes.c_int64),
        ("is_allowed", ctypes.c_void_p),
    )


def draw(
    logits: Tensor,
    adjustments: Sequence[Adjustment | None] | None,
    temperatures: Tensor,
    top_ks: Tensor | None,
    top_ps: Tensor | None,
    min_ps: Tensor | None,
    seeds: Tensor,
    choices: Tensor,
    positions: Tensor,
    *,
    typical_ps: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What `sample_reference` draws of each row, but for the rounding of logarithms and sums, int64 [num_rows], and
    whether all of a row's logits are finite, bool [num_rows]. -1 where a logit is NaN or +inf, or all are -inf.

    logits: [num_rows, vocab_size] float32, rows contiguous, unchanged; adjustments: [num_rows], each row is drawn
    from as `adjust_reference` would change it, but for rounding; temperatures: [num_rows] float32; top_ks: int64,
    top_ps, min_ps: float32, or all three None: no filter is on; seeds, choices, positions: int64, the last one how many
    tokens precede the one that is drawn; typical_ps: float32, or None: off. Of tokens that tie, top-p keeps the first.
    """
    tokens = torch.empty(len(logits), dtype=torch.int64)
    are_finite = torch.empty(len(logits), dtype=torch.bool)
    packed = _Adjustments(adjustments) if adjustments and any(adjustments) else None
    filters = (None if values is None else values.data_ptr() for values in (top_ks, top_ps, min_ps, typical_ps))
    library().zeroshot_draw(
        logits.data_ptr(), None if packed is None else packed.addresses, temperatures.data_ptr(), *filters,
        seeds.data_ptr(), choices.data_ptr(), positions.data_ptr(), tokens.data_ptr(), are_finite.data_ptr(),
        *logits.shape, logits.stride(0),
    )  # fmt: skip
    return tokens, are_finite


class _Adjustments:
    """What the structures point to lives as long as this."""

    def __init__(self, adjustments: Sequence[Adjustment | None]) -> None:
        self._kept: list[Any] = []
        self.addresses = (ctypes.c_void_p * len(adjustments))(*map(self._address_of, adjustments))

    def _address_of(self, adjustment: Adjustment | None) -> int | None:
        if adjustment is None:
            return None
        bias, allowed = adjustment.logit_bias, adjustment.is_allowed
        structure = _Adjustment(
            biased_ids=self._numbers("q", bias.keys()),
            biases=self._numbers("f", bias.values()),
            num_biased=len(bias),
            token_ids=self._numbers("q", adjustment.token_ids),
            num_tokens=len(adjustment.token_ids),
            num_prompt_tokens=adjustment.num_prompt_tokens,
            repetition_penalty=adjustment.repetition_penalty,
            presence_penalty=adjustment.presence_penalty,
            frequency_penalty=adjustment.frequency_penalty,
            forbidden_ids=self._numbers("q", adjustment.forbidden_ids),
            num_forbidden=len(adjustment.forbidden_ids),
            is_allowed=None if allowed is None else allowed.ctypes.data,
        )
        self._kept += [structure, allowed]
        return ctypes.addressof(structure)

    def _numbers(self, kind: str, numbers: Iterable[float]) -> int:
        values = array(kind, numbers)
        self._kept.append(values)
        return values.buffer_info()[0]
