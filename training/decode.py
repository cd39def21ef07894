"""Greedy decoding and scoring with the exported folder, through Hugging Face's GPT-2: a second opinion on the server.

Everything runs in float32 on batches of prompts of similar length.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import GPT2LMHeadModel

from training.vocabulary import END_OF_TEXT_ID, load_tokenizer

NEWLINE_ID = 198
BATCH_TOKENS = 4096
GENERATE_ROWS = 32  # a batch runs until its longest answer ends: 160 rows took three times as long
Scored = tuple[list[int], list[int]]  # (what is given, what is scored)


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """An exported folder, ready to decode and to score."""

    model: GPT2LMHeadModel
    tokenizer: Tokenizer

    @classmethod
    def load(cls, folder: Path) -> "LanguageModel":
        model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32)
        return cls(model.eval(), load_tokenizer(folder))

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    @torch.inference_mode()
    def complete_lines(
        self, prompts: Sequence[str], *, max_tokens: int = 100, on_batch: Callable[[int], None] = lambda _: None
    ) -> list[str]:
        """The most likely continuation of each prompt up to the end of its line, stripped."""
        encoded = [self.encode(prompt) for prompt in prompts]
        lines = [""] * len(prompts)
        for batch in in_batches([len(ids) for ids in encoded], max_rows=GENERATE_ROWS):
            ids, mask = pad_left([encoded[i] for i in batch])
            out = self.model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=max_tokens,
                do_sample=False,
                eos_token_id=[NEWLINE_ID, END_OF_TEXT_ID],
                pad_token_id=END_OF_TEXT_ID,
            )
            for i, row in zip(batch, out[:, ids.shape[1] :].tolist(), strict=True):
                lines[i] = self.tokenizer.decode(row, skip_special_tokens=True).split("\n")[0].strip()
                lines[i] = lines[i].replace("<|endoftext|>", "")
            on_batch(len(batch))
        return lines

    @torch.inference_mode()
    def logprobs(self, rows: Sequence[Scored], *, on_batch: Callable[[int], None] = lambda _: None) -> list[Tensor]:
        """log p of every scored token, in nats, given all tokens before it: one [num_scored] tensor a row.

        The vocabulary projection runs on scored positions only.
        """
        results: list[Tensor] = [torch.empty(0)] * len(rows)
        for batch in in_batches([len(given) + len(scored) for given, scored in rows]):
            length = max(len(rows[i][0]) + len(rows[i][1]) for i in batch)
            ids = torch.full((len(batch), length), END_OF_TEXT_ID)
            for row, i in enumerate(batch):
                text = rows[i][0] + rows[i][1]
                ids[row, : len(text)] = torch.tensor(text)
            hidden = self.model.transformer(ids).last_hidden_state  # causal: padding on the right is never seen
            for row, i in enumerate(batch):
                given, scored = rows[i]
                before = hidden[row, len(given) - 1 : len(given) + len(scored) - 1]
                logprobs = self.model.lm_head(before).log_softmax(-1)
                results[i] = logprobs.gather(1, torch.tensor(scored).unsqueeze(1)).squeeze(1)
            on_batch(len(batch))
        return results

    def has_own_row(self) -> Tensor:
        """Which of the 50,257 tokens have a row of their own, not the shared one: [50257] bool."""
        _, which, counts = torch.unique(
            self.model.transformer.wte.weight, dim=0, return_inverse=True, return_counts=True
        )
        return which != counts.argmax() if counts.max() > 1 else torch.ones(len(which), dtype=torch.bool)


def in_batches(lengths: Sequence[int], *, max_rows: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Indices grouped so that a batch of similar lengths holds about 4096 tokens with padding."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == max_rows or (len(batch) + 1) * lengths[index] > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def pad_left(rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both [rows, longest]; generation continues at the right end."""
    longest = max(map(len, rows))
    ids = [[END_OF_TEXT_ID] * (longest - len(row)) + row for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)
