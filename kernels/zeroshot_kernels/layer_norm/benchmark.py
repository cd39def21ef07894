"""Time and share of the read bandwidth: `python -m zeroshot_kernels.layer_norm.benchmark`."""

import sys
from functools import partial

import torch

from zeroshot_kernels import timing
from zeroshot_kernels.layer_norm.kernel import layer_norm


def main() -> None:
    device = timing.require_cuda()
    bandwidth = timing.read_bandwidth()
    lines = [f"{torch.cuda.get_device_name()}: {bandwidth / 1e12:.2f} TB/s read"]
    for n_embd in (768, 1600):
        for num_tokens in (1, 64, 512, 8192):
            hidden = torch.randn(num_tokens, n_embd, device=device, dtype=torch.bfloat16)
            residual = torch.randn(num_tokens, n_embd, device=device)
            weight, bias = torch.randn(2, n_embd, device=device, dtype=torch.bfloat16)
            out = torch.empty_like(hidden)
            num_bytes = hidden.numel() * (2 + 4 + 2 + 4)
            case = f"{num_tokens} tokens, n_embd {n_embd}"
            launch = partial(layer_norm, hidden, residual, weight, bias, 1e-5, out=out, residual_out=residual)
            lines.append(timing.row(case, timing.seconds(launch), num_bytes, bandwidth))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
