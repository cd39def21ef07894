"""The two sizes of the recipe.

`cpu` is what `model_weights/demo/` was made with: two cores, an evening. `gpu` is the same recipe with more tokens per
step and more steps; width and depth stay, because the weights file has to stay small enough for git.
"""

from dataclasses import dataclass, replace

from zeroshot.model.config import GPT2Config


@dataclass(frozen=True, slots=True)
class Preset:
    """Model size, batch and schedule; learning rates follow the square root of the batch."""

    n_layer: int
    n_embd: int
    n_head: int
    short_rows: int  # rows of 128 tokens per step
    long_rows: int  # rows of 1024 tokens per step
    micro_batch_tokens: int  # tokens in one forward and backward pass
    max_steps: int
    warmup_steps: int
    max_lr: float
    eval_every: int

    @property
    def tokens_per_step(self) -> int:
        return 128 * self.short_rows + 1024 * self.long_rows

    def shortened(self, max_steps: int | None, max_lr: float | None) -> "Preset":
        """The same preset for another number of steps or peak rate; the warm-up is a tenth of the run at most."""
        steps = max_steps or self.max_steps
        return replace(
            self,
            max_steps=steps,
            max_lr=max_lr or self.max_lr,
            warmup_steps=min(self.warmup_steps, max(1, steps // 10)),
        )

    def config(self, vocab_size: int) -> GPT2Config:
        """GPT-2's architecture at this size; `vocab_size` is the compact one while training."""
        return GPT2Config(
            vocab_size=vocab_size,
            n_embd=self.n_embd,
            n_layer=self.n_layer,
            n_head=self.n_head,
            n_inner=4 * self.n_embd,
            bos_token_id=vocab_size - 2,
            eos_token_id=vocab_size - 2,
        )


PRESETS = {
    # a step is two micro-batches, 28 short rows and one long one; 16 to 64 rows were equally fast (7,900 tokens/s)
    "cpu": Preset(
        n_layer=6, n_embd=256, n_head=4, short_rows=28, long_rows=1, micro_batch_tokens=3584,
        max_steps=9000, warmup_steps=300, max_lr=1.5e-3, eval_every=500,
    ),
    "gpu": Preset(
        n_layer=6, n_embd=256, n_head=4, short_rows=224, long_rows=8, micro_batch_tokens=32768,
        max_steps=12000, warmup_steps=500, max_lr=3e-3, eval_every=500,
    ),
}  # fmt: skip
