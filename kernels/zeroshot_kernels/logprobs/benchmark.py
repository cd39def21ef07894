"""Time and share of the matrix rate: `python -m zeroshot_kernels.logprobs.benchmark`."""

import sys
from functools import partial

import torch

from zeroshot_kernels import timing
from zeroshot_kernels.logprobs.kernel import LogprobsWorkspace, logprobs

VOCAB_SIZE = 50257


def main() -> None:
    device = timing.require_cuda()
    bandwidth, matrix_rate = timing.read_bandwidth(), timing.matrix_rate()
    lines = [f"{torch.cuda.get_device_name()}: {bandwidth / 1e12:.2f} TB/s read, {matrix_rate / 1e12:.0f} TFLOP/s bf16"]
    for num_tokens, n_embd in ((16, 768), (128, 768), (1024, 768), (4096, 768), (1024, 1600)):
        hidden = torch.randn(num_tokens, n_embd, device=device, dtype=torch.bfloat16)
        lm_head = torch.randn(VOCAB_SIZE, n_embd, device=device, dtype=torch.bfloat16) * n_embd**-0.5
        targets = torch.randint(VOCAB_SIZE, (num_tokens,), device=device)
        workspace = LogprobsWorkspace.allocate(num_tokens, VOCAB_SIZE, device)
        out = torch.empty(num_tokens, device=device), torch.empty(num_tokens, device=device, dtype=torch.int32)
        launch = partial(logprobs, hidden, lm_head, targets, out=out, workspace=workspace)
        time_s = timing.seconds(launch)
        flop = 2 * num_tokens * n_embd * VOCAB_SIZE
        note = f"{flop / time_s / 1e12:6.1f} TFLOP/s, {flop / time_s / matrix_rate:.1%} of matrix rate"
        num_bytes = 2 * n_embd * (num_tokens + VOCAB_SIZE)
        lines.append(timing.row(f"{num_tokens} tokens, n_embd {n_embd}", time_s, num_bytes, bandwidth, note))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
