"""Time and bytes: `python -m zeroshot_kernels.logit_adjustment.benchmark`."""

import sys
from functools import partial

import torch

from zeroshot_kernels import timing
from zeroshot_kernels.logit_adjustment.kernel import logit_adjustment

VOCAB_SIZE, ENTRIES_OF_A_ROW = 50257, 256


def main() -> None:
    device = timing.require_cuda()
    bandwidth = timing.read_bandwidth()
    lines = [f"{torch.cuda.get_device_name()}: {bandwidth / 1e12:.2f} TB/s read"]
    for num_rows in (1, 64, 512):
        logits = torch.randn(num_rows, VOCAB_SIZE, device=device)
        num_entries = num_rows * ENTRIES_OF_A_ROW
        arguments = (
            logits,
            torch.arange(num_rows, device=device, dtype=torch.int32).repeat_interleave(ENTRIES_OF_A_ROW),
            torch.randperm(VOCAB_SIZE, device=device, dtype=torch.int32)[:ENTRIES_OF_A_ROW].repeat(num_rows),
            torch.zeros(num_entries, device=device),
            torch.ones(num_entries, device=device, dtype=torch.bool),
            torch.ones(num_entries, device=device, dtype=torch.int32),
            torch.full((num_rows,), 1.2, device=device),
            torch.full((num_rows,), 0.5, device=device),
            torch.full((num_rows,), 0.5, device=device),
        )
        num_bytes = num_entries * (4 + 4 + 4 + 1 + 4 + 2 * 32)  # a scattered access moves a sector of 32 bytes
        case = f"{num_rows} rows, {ENTRIES_OF_A_ROW} entries each"
        launch = partial(logit_adjustment, *arguments)
        lines.append(timing.row(case, timing.seconds(launch), num_bytes, bandwidth))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
