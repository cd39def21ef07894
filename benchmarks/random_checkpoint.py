"""GPT-2-shaped checkpoints with random values: the same work as the real ones, and nothing to download."""

import shutil
from pathlib import Path

import torch

SIZES = {
    "tiny": {"n_embd": 64, "n_layer": 2, "n_head": 4},
    "124m": {"n_embd": 768, "n_layer": 12, "n_head": 12},
    "355m": {"n_embd": 1024, "n_layer": 24, "n_head": 16},
    "774m": {"n_embd": 1280, "n_layer": 36, "n_head": 20},
    "1.5b": {"n_embd": 1600, "n_layer": 48, "n_head": 25},
}
TOKENIZER_FOLDER = Path(__file__).parents[1] / "model_weights" / "demo"


def random_checkpoint(size: str, folder: Path, *, seed: int = 0) -> Path:
    """Saved by Hugging Face, with the real tokenizer. Returns its folder, in `folder`; made once."""
    target = folder / f"random-gpt2-{size}"
    if not (target / "model.safetensors").exists():
        from transformers import GPT2Config, GPT2LMHeadModel  # slow to import, and the checkpoint may be there

        torch.manual_seed(seed)
        GPT2LMHeadModel(GPT2Config(**SIZES[size])).save_pretrained(target)
        for name in ("vocab.json", "merges.txt"):
            shutil.copyfile(TOKENIZER_FOLDER / name, target / name)
    return target
