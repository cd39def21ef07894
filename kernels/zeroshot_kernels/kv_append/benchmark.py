"""Time and share of the read bandwidth: `python -m zeroshot_kernels.kv_append.benchmark`."""

import sys
from functools import partial

import torch

from zeroshot_kernels import timing
from zeroshot_kernels.kv_append.kernel import kv_append

N_HEAD, HEAD_DIM, PAGE_SIZE = 12, 64, 64


def main() -> None:
    device = timing.require_cuda()
    bandwidth = timing.read_bandwidth()
    lines = [f"{torch.cuda.get_device_name()}: {bandwidth / 1e12:.2f} TB/s read"]
    for num_tokens in (1, 64, 512, 8192):
        memory = torch.zeros(512, N_HEAD, 2, PAGE_SIZE, HEAD_DIM, device=device, dtype=torch.bfloat16)
        key_cache, value_cache = memory.permute(2, 0, 3, 1, 4)
        qkv = torch.randn(num_tokens, 3, N_HEAD, HEAD_DIM, device=device, dtype=torch.bfloat16)
        slots = torch.randperm(512 * PAGE_SIZE, device=device)[:num_tokens].int()
        num_bytes = 2 * 2 * num_tokens * N_HEAD * HEAD_DIM * 2
        launch = partial(kv_append, qkv[:, 1], qkv[:, 2], slots, key_cache, value_cache)
        lines.append(timing.row(f"{num_tokens} tokens, {N_HEAD} heads", timing.seconds(launch), num_bytes, bandwidth))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
