"""Time and share of the read bandwidth: `python -m zeroshot_kernels.merge_projection.benchmark`."""

import sys
from functools import partial

import torch

from zeroshot_kernels import timing
from zeroshot_kernels.merge_projection.kernel import merge_projection

CASES = [(768, 12, 1), (768, 12, 8), (1600, 25, 1)]
"""n_embd, n_head, rows. Cold: the weights come from memory, as they do when a whole model is read between two uses."""


def main() -> None:
    device = timing.require_cuda()
    bandwidth = timing.read_bandwidth()
    use_pdl = torch.cuda.get_device_capability() >= (9, 0)
    lines = [f"{torch.cuda.get_device_name()}: {bandwidth / 1e12:.2f} TB/s read"]
    for n_embd, n_head, num_rows in CASES:
        weight = torch.randn(n_embd, n_embd, device=device, dtype=torch.bfloat16)
        bias = torch.randn(n_embd, device=device, dtype=torch.bfloat16)
        output = torch.randn(num_rows, 8, n_head, 64, device=device)
        largest, total = torch.ones(2, num_rows, 8, n_head, device=device)
        lens = torch.full((num_rows,), 512, dtype=torch.int32, device=device)
        residual = torch.randn(num_rows, n_embd, device=device)
        num_bytes = 2 * weight.numel() + 4 * output.numel()
        case = f"{num_rows} rows, n_embd {n_embd}"
        launch = partial(
            merge_projection, output, largest, total, lens, weight, bias, residual, out=residual, use_pdl=use_pdl
        )
        lines.append(timing.row(case, timing.seconds(launch), num_bytes, bandwidth))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
