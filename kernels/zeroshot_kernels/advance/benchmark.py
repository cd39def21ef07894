"""Time and bytes: `python -m zeroshot_kernels.advance.benchmark`."""

import sys
from functools import partial

import torch

from zeroshot_kernels import timing
from zeroshot_kernels.advance.kernel import advance

N_POSITIONS = 1024


def main() -> None:
    device = timing.require_cuda()
    bandwidth = timing.read_bandwidth()
    lines = [f"{torch.cuda.get_device_name()}: {bandwidth / 1e12:.2f} TB/s read"]
    for num_rows in (1, 64, 512):
        token_ids, limits, newest, positions, draw_positions, drawn = torch.zeros(
            6, num_rows, dtype=torch.int64, device=device
        )
        context_lens, slots = torch.zeros(2, num_rows, dtype=torch.int32, device=device)
        slot_table = torch.zeros(num_rows, N_POSITIONS, dtype=torch.int32, device=device)
        is_valid = torch.ones(num_rows, dtype=torch.bool, device=device)
        state = (limits, newest, positions, draw_positions, context_lens, slot_table, slots, drawn)
        num_bytes = num_rows * (9 * 8 + 3 * 4 + 1 + 32)  # a scattered access moves a sector of 32 bytes
        launch = partial(advance, token_ids, is_valid, None, *state)
        lines.append(timing.row(f"{num_rows} rows", timing.seconds(launch), num_bytes, bandwidth))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
