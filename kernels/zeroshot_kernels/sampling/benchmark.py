"""Time and share of the read bandwidth: `python -m zeroshot_kernels.sampling.benchmark`."""

import sys
from functools import partial

import torch

from zeroshot_kernels import timing
from zeroshot_kernels.sampling.kernel import SamplingWorkspace, empty_samples, sampling

VOCAB_SIZE, PADDED_VOCAB_SIZE = 50257, 50304

CASES = {
    "greedy": (0.0, 0, 1.0, 0.0),
    "temperature 1": (1.0, 0, 1.0, 0.0),
    "top-k 50": (1.0, 50, 1.0, 0.0),
    "top-p 0.9": (1.0, 0, 0.9, 0.0),
    "min-p 0.05": (1.0, 0, 1.0, 0.05),
    "top-k 50, top-p 0.95": (1.0, 50, 0.95, 0.0),
    "top-k 1000, top-p 0.95": (1.0, 1000, 0.95, 0.0),
}
"""temperature, top_k, top_p, min_p"""


def main() -> None:
    device = timing.require_cuda()
    bandwidth = timing.read_bandwidth()
    lines = [f"{torch.cuda.get_device_name()}: {bandwidth / 1e12:.2f} TB/s read"]
    for num_rows in (1, 64, 512):
        # 99 % of GPT-2's probability is on a few hundred tokens: as with these logits.
        logits = (3 * torch.randn(num_rows, PADDED_VOCAB_SIZE, device=device))[:, :VOCAB_SIZE]
        seeds = torch.arange(num_rows, device=device)
        workspace = SamplingWorkspace.allocate(num_rows, VOCAB_SIZE, device)
        out = empty_samples(num_rows, device)
        for name, (temperature, top_k, top_p, min_p) in CASES.items():
            arguments = (
                logits,
                torch.full((num_rows,), temperature, device=device),
                torch.full((num_rows,), top_k, dtype=torch.int32, device=device),
                torch.full((num_rows,), top_p, device=device),
                torch.full((num_rows,), min_p, device=device),
                seeds,
                torch.zeros_like(seeds),
                torch.full_like(seeds, 100),
            )
            num_bytes = 4 * num_rows * VOCAB_SIZE
            launch = partial(sampling, *arguments, out=out, workspace=workspace)
            lines.append(timing.row(f"{num_rows} rows, {name}", timing.seconds(launch), num_bytes, bandwidth))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
