"""Time and share of the read bandwidth: `python -m zeroshot_kernels.decode_attention.benchmark`."""

import sys
from functools import partial

import torch

from zeroshot_kernels import timing
from zeroshot_kernels.decode_attention.kernel import DecodeWorkspace, decode_attention

CASES = [(1, 12, 512), (8, 12, 512), (64, 12, 512), (512, 12, 512), (512, 12, 1024), (64, 25, 512), (512, 12, 0)]
"""num_seqs, n_head, context; a context of 0 is ragged: uniform from 1 to 1024."""

HEAD_DIM, PAGE_SIZE, MAX_CONTEXT = 64, 64, 1024


def main() -> None:
    device = timing.require_cuda()
    bandwidth = timing.read_bandwidth()
    lines = [f"{torch.cuda.get_device_name()}: {bandwidth / 1e12:.2f} TB/s read"]
    for num_seqs, n_head, context in CASES:
        blocks = MAX_CONTEXT // PAGE_SIZE
        memory = torch.randn(num_seqs * blocks, n_head, 2, PAGE_SIZE, HEAD_DIM, device=device, dtype=torch.bfloat16)
        key_cache, value_cache = memory.permute(2, 0, 3, 1, 4)
        tables = torch.randperm(num_seqs * blocks, device=device).int().view(num_seqs, blocks)
        lens = torch.full((num_seqs,), context, dtype=torch.int32, device=device)
        if context == 0:
            lens.random_(1, MAX_CONTEXT + 1)
        query = torch.randn(num_seqs, n_head, HEAD_DIM, device=device, dtype=torch.bfloat16)
        out = torch.empty_like(query)
        workspace = DecodeWorkspace.allocate(num_seqs, n_head, HEAD_DIM, MAX_CONTEXT, device)
        num_bytes = 2 * int(lens.sum()) * n_head * HEAD_DIM * 2 + 2 * query.numel() * 2
        case = f"{num_seqs} sequences, {n_head} heads, context {context or 'ragged'}"
        launch = partial(
            decode_attention, query, key_cache, value_cache, tables, lens, HEAD_DIM**-0.5, out=out, workspace=workspace
        )
        lines.append(timing.row(case, timing.seconds(launch), num_bytes, bandwidth))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
