"""Log-probabilities of a prompt's tokens, on the device: by the fused kernel where only the tokens' own are wanted."""

import numpy as np
import torch
from torch import Tensor

from zeroshot.engine.batch import PromptScores
from zeroshot.engine.device import Device, Download
from zeroshot.engine.device_sampler import logprobs_of
from zeroshot.model.gpt2 import GPT2

_ROWS_AT_ONCE = 512  # logits of this many rows are held at a time: 103 MB for GPT-2's vocabulary


class PromptScorer:
    def __init__(self, model: GPT2, device: Device) -> None:
        self._model, self._device = model, device
        self._lm_head = model.lm_head.weight[: model.config.vocab_size]

    def launch(self, hidden: Tensor, scores: PromptScores) -> Download:
        """hidden: [num_tokens, n_embd] of the step. The arrays are those that `downloaded.scored` takes."""
        hidden = hidden[scores.rows.start : scores.rows.stop]
        targets = self._device.upload(np.array(scores.target_token_ids, np.int64))
        num_top = scores.sequence.sampling_params.prompt_logprobs or 0
        if num_top == 0:
            logprobs, ranks = self._model.backend.ops.logprobs(hidden, self._lm_head, targets)
            return self._device.download([targets, logprobs[:, None], ranks[:, None]])
        chunks = [slice(start, start + _ROWS_AT_ONCE) for start in range(0, len(hidden), _ROWS_AT_ONCE)]
        found = [logprobs_of(self._model.compute_logits(hidden[rows]), targets[rows], num_top) for rows in chunks]
        logprobs, ids = (torch.cat(parts) for parts in zip(*found, strict=True))
        return self._device.download([targets, logprobs, ids])
