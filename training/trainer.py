"""One model, its optimizer and its place in the run.

Called by `train.py` and by the tests, which hold a resumed run to the same weights, bit for bit.
"""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from training import checkpoint
from training.batches import Batch, Batches, to_batch
from training.checkpoint import Checkpoint, Progress
from training.model import GPT2
from training.packing import Rows
from training.presets import Preset
from training.schedule import Schedule
from training.vocabulary import Vocabulary

BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
MAX_GRADIENT_NORM = 1.0
HELD_OUT_TOKENS = 16_384  # of each row length, at each evaluation


@dataclass(slots=True)
class Trainer:
    """A model, its optimizer and its place in the run; `step()` is one update."""

    model: GPT2
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    batches: Batches
    preset: Preset
    device: torch.device
    use_bf16: bool
    progress: Progress

    @classmethod
    def create(
        cls,
        batches: Batches,
        preset: Preset,
        schedule: Schedule,
        *,
        vocabulary: Vocabulary,
        device: torch.device,
        use_bf16: bool,
        seed: int,
    ) -> "Trainer":
        """A freshly initialised model; the same seed gives the same weights."""
        torch.manual_seed(seed)
        model = GPT2(preset.config(vocabulary.size), num_shared=vocabulary.num_shared).to(device)
        optimizer = make_optimizer(model, preset.max_lr)
        return cls(model, optimizer, schedule, batches, preset, device, use_bf16, Progress())

    @property
    def share_done(self) -> float:
        return self.schedule.progress(self.progress.step, self.progress.elapsed_s)

    @property
    def is_finished(self) -> bool:
        return self.share_done >= 1.0

    def step(self) -> float:
        """One update over one step's rows; the weighted mean loss in nats."""
        started = time.monotonic()
        rate = self.schedule.learning_rate(self.progress.step, self.progress.elapsed_s)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batches = list(self.batches.step(self.progress.step, self.preset))
        total_weight = sum(float(batch.weights[:, 1:].sum()) for batch in batches)
        loss = 0.0
        for batch in batches:
            micro_loss = self._loss_sum(batch) / total_weight
            micro_loss.backward()  # type: ignore[no-untyped-call]
            loss += float(micro_loss.detach())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        self.progress.tokens += sum(batch.tokens.numel() for batch in batches)
        self.progress.elapsed_s += time.monotonic() - started
        return loss

    def _loss_sum(self, batch: Batch) -> torch.Tensor:
        tokens, weights = batch.tokens.to(self.device), batch.weights.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.use_bf16):
            return self.model.loss_sum(tokens, weights, batch.first_position.to(self.device))

    @torch.no_grad()
    def held_out_loss(self, rows: Rows) -> float:
        """Mean cross-entropy in nats per target, every target counted once."""
        counted = min(len(rows.tokens), HELD_OUT_TOKENS // rows.length)
        size = max(1, self.preset.micro_batch_tokens // rows.length)
        loss = targets = 0.0
        for first in range(0, counted, size):
            numbers = np.arange(first, min(first + size, counted))
            batch = to_batch(rows, numbers, torch.zeros(len(numbers), 1, dtype=torch.int64))
            flat = replace(batch, weights=(batch.weights > 0).float())
            loss += float(self._loss_sum(flat))
            targets += float(flat.weights[:, 1:].sum())
        return loss / targets

    def save(self, path: Path) -> None:
        settings = {"preset": asdict(self.preset), "seed": self.batches.seed}
        checkpoint.save(path, Checkpoint(self.model.state_dict(), self.optimizer.state_dict(), self.progress, settings))

    def resume(self, path: Path) -> None:
        """Raises ValueError if the checkpoint is of another model or another order of the data."""
        saved = checkpoint.load(path)
        settings = {"preset": asdict(self.preset), "seed": self.batches.seed}
        if saved.settings != settings:
            raise ValueError(f"{path} was made with other settings: {saved.settings}; now: {settings}")
        self.model.load_state_dict(saved.model)
        self.optimizer.load_state_dict(saved.optimizer)
        self.progress = saved.progress


def make_optimizer(model: GPT2, max_lr: float) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only, because decaying biases and LayerNorm gains only costs accuracy."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=max_lr, betas=BETAS, fused=True)
