"""Time and bytes: `python -m zeroshot_kernels.embedding.benchmark`."""

import sys
from functools import partial

import torch

from zeroshot_kernels import timing
from zeroshot_kernels.embedding.kernel import embedding

VOCAB_SIZE, N_POSITIONS = 50257, 1024
CASES = [(768, 1), (768, 8), (1600, 1)]
"""n_embd, rows."""


def main() -> None:
    device = timing.require_cuda()
    bandwidth = timing.read_bandwidth()
    lines = [f"{torch.cuda.get_device_name()}: {bandwidth / 1e12:.2f} TB/s read"]
    for n_embd, num_rows in CASES:
        wte = torch.randn(VOCAB_SIZE, n_embd, device=device, dtype=torch.bfloat16)
        wpe = torch.randn(N_POSITIONS, n_embd, device=device, dtype=torch.bfloat16)
        token_ids = torch.randint(0, VOCAB_SIZE, (num_rows,), device=device)
        positions = torch.randint(0, N_POSITIONS, (num_rows,), device=device)
        num_bytes = num_rows * n_embd * (2 + 2 + 4)
        launch = partial(embedding, token_ids, positions, wte, wpe)
        lines.append(timing.row(f"{num_rows} rows, n_embd {n_embd}", timing.seconds(launch), num_bytes, bandwidth))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
