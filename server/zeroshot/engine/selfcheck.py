"""Is what we serve the same model? Compares our logits with Hugging Face's, position by position."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zeroshot.engine.loader import load_model
from zeroshot.model.gpt2 import GPT2, AttentionMetadata
from zeroshot.settings import EngineSettings
from zeroshot.text.tokenizer import Tokenizer

TOLERANCE = 1e-4
"""The largest difference of a logit that fp32 rounding explains."""

_BLOCK_SIZE = 16
_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "translate English to French: I am hungry. =",
    "In 1969, Apollo 11 landed on the Moon; the 🌕 was 384,400 km away.\n\n" * 12,
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`worst`: largest absolute difference of any logit, infinite if one is no number, also if neither is.
    `num_same_choice`: positions where both prefer one token.
    """

    prompt: str
    prefill: str
    num_tokens: int
    worst: float
    num_same_choice: int


def compare_with_hugging_face(folder: Path) -> Iterator[Comparison]:
    """Each text prefilled at once, in chunks and token by token, against GPT2LMHeadModel in fp32 on the CPU."""
    from transformers import GPT2LMHeadModel  # slow to import; nothing else in the server needs it

    ours = load_model(EngineSettings(model_folder=folder, dtype="fp32", device="cpu"))
    theirs = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_folder(folder)
    for text in _TEXTS:
        token_ids = tokenizer.encode(text)[: ours.config.n_positions]
        with torch.inference_mode():
            expected = theirs(torch.tensor([token_ids])).logits[0]
        for prefill, chunk in (("at once", len(token_ids)), ("in chunks of 7", 7), ("token by token", 1)):
            logits = prompt_logits(ours, token_ids, chunk)
            yield Comparison(
                prompt=text if len(text) < 50 else text[:47] + "...",
                prefill=prefill,
                num_tokens=len(token_ids),
                worst=float((logits - expected).abs().nan_to_num(nan=torch.inf).max()),
                num_same_choice=int((logits.argmax(-1) == expected.argmax(-1)).sum()),
            )


@torch.inference_mode()
def prompt_logits(model: GPT2, token_ids: list[int], chunk: int) -> Tensor:
    """Logits at every position of one prompt, run `chunk` tokens at a time: [num_tokens, vocab_size] float32."""
    num_blocks = -(-len(token_ids) // _BLOCK_SIZE)
    kv_cache = model.allocate_kv_cache(num_blocks, _BLOCK_SIZE)
    logits = []
    for start in range(0, len(token_ids), chunk):
        ids = torch.tensor(token_ids[start : start + chunk], device=model.device)
        positions = torch.arange(start, start + len(ids), device=model.device)
        attention = AttentionMetadata(
            slot_mapping=positions,
            block_tables=torch.arange(num_blocks, device=model.device)[None],
            context_lens=torch.tensor([start + len(ids)], dtype=torch.int32, device=model.device),
            query_lens=torch.tensor([len(ids)], dtype=torch.int32, device=model.device),
            num_decodes=int(len(ids) == 1),
        )
        logits.append(model.compute_logits(model.forward(ids, positions, kv_cache, attention)))
    return torch.cat(logits)
