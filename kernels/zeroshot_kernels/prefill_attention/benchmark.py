"""Time and share of the matrix rate: `python -m zeroshot_kernels.prefill_attention.benchmark`."""

import sys
from functools import partial

import torch

from zeroshot_kernels import timing
from zeroshot_kernels.prefill_attention.kernel import prefill_attention

CASES = [(1, 1024, 0), (8, 1024, 0), (32, 128, 0), (8, 128, 896), (1, 512, 512)]
"""num_seqs, new tokens of each, cached tokens of each."""

N_HEAD, HEAD_DIM, PAGE_SIZE, MAX_CONTEXT = 12, 64, 64, 1024


def main() -> None:
    device = timing.require_cuda()
    bandwidth, matrix_rate = timing.read_bandwidth(), timing.matrix_rate()
    lines = [f"{torch.cuda.get_device_name()}: {bandwidth / 1e12:.2f} TB/s read, {matrix_rate / 1e12:.0f} TFLOP/s bf16"]
    for num_seqs, query_len, cached in CASES:
        blocks = MAX_CONTEXT // PAGE_SIZE
        memory = torch.randn(num_seqs * blocks, N_HEAD, 2, PAGE_SIZE, HEAD_DIM, device=device, dtype=torch.bfloat16)
        key_cache, value_cache = memory.permute(2, 0, 3, 1, 4)
        tables = torch.randperm(num_seqs * blocks, device=device).int().view(num_seqs, blocks)
        query_lens = torch.full((num_seqs,), query_len, dtype=torch.int32, device=device)
        query = torch.randn(num_seqs * query_len, N_HEAD, HEAD_DIM, device=device, dtype=torch.bfloat16)
        arguments = (query, key_cache, value_cache, tables, query_lens, query_lens + cached, HEAD_DIM**-0.5)
        out = torch.empty_like(query)
        launch = partial(prefill_attention, *arguments, out=out)
        time_s = timing.seconds(launch)
        seen = query_len * cached + query_len * (query_len + 1) // 2  # (query, key) pairs of a head
        flop = 4 * num_seqs * N_HEAD * HEAD_DIM * seen
        num_bytes = 2 * N_HEAD * HEAD_DIM * 2 * num_seqs * (query_len + query_len + cached)
        note = f"{flop / time_s / 1e12:6.1f} TFLOP/s, {flop / time_s / matrix_rate:.1%} of matrix rate"
        case = f"{num_seqs} x {query_len} new, {cached} cached"
        lines.append(timing.row(case, time_s, num_bytes, bandwidth, note))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
