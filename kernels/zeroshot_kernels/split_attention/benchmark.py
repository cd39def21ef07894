"""Time and share of the read bandwidth: `python -m zeroshot_kernels.split_attention.benchmark`."""

import sys
from functools import partial

import torch

from zeroshot_kernels import timing
from zeroshot_kernels.split_attention.kernel import SplitResults, split_attention

CASES = [(768, 12, 1), (768, 12, 8), (1600, 25, 1)]
"""n_embd, n_head, rows. Cold: the weights come from memory, as they do when a whole model is read between two uses."""


def main() -> None:
    device = timing.require_cuda()
    bandwidth = timing.read_bandwidth()
    use_pdl = torch.cuda.get_device_capability() >= (9, 0)
    lines = [f"{torch.cuda.get_device_name()}: {bandwidth / 1e12:.2f} TB/s read"]
    for n_embd, n_head, num_rows in CASES:
        memory = torch.randn(8 * num_rows, n_head, 2, 64, 64, device=device, dtype=torch.bfloat16)
        key_cache, value_cache = memory.permute(2, 0, 3, 1, 4)
        tables = torch.randperm(8 * num_rows, device=device).int().view(num_rows, 8)
        lens = torch.full((num_rows,), 512, dtype=torch.int32, device=device)
        query = torch.randn(num_rows, n_head, 64, device=device, dtype=torch.bfloat16)
        out = SplitResults.allocate(num_rows, n_head, 64, 512, device)
        num_bytes = 2 * 2 * 512 * num_rows * n_embd
        case = f"{num_rows} rows, n_embd {n_embd}"
        launch = partial(split_attention, query, key_cache, value_cache, tables, lens, 0.125, out=out, use_pdl=use_pdl)
        lines.append(timing.row(case, timing.seconds(launch), num_bytes, bandwidth))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
