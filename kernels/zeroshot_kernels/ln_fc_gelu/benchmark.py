"""Time and share of the read bandwidth: `python -m zeroshot_kernels.ln_fc_gelu.benchmark`."""

import sys
from functools import partial

import torch

from zeroshot_kernels import timing
from zeroshot_kernels.folded_norm import fold_norm
from zeroshot_kernels.ln_fc_gelu.kernel import ln_fc_gelu

CASES = [(768, 1), (768, 8), (1600, 1)]
"""n_embd, rows. Cold: the weights come from memory, as they do when a whole model is read between two uses."""


def main() -> None:
    device = timing.require_cuda()
    bandwidth = timing.read_bandwidth()
    use_pdl = torch.cuda.get_device_capability() >= (9, 0)
    lines = [f"{torch.cuda.get_device_name()}: {bandwidth / 1e12:.2f} TB/s read"]
    for n_embd, num_rows in CASES:
        weight = torch.randn(4 * n_embd, n_embd, device=device, dtype=torch.bfloat16)
        bias = torch.randn(4 * n_embd, device=device, dtype=torch.bfloat16)
        ln_weight, ln_bias = torch.randn(2, n_embd, device=device, dtype=torch.bfloat16)
        folded = fold_norm(ln_weight, ln_bias, weight, bias)
        residual = torch.randn(num_rows, n_embd, device=device)
        out = torch.empty(num_rows, 4 * n_embd, device=device, dtype=torch.bfloat16)
        num_bytes = 2 * weight.numel()
        case = f"{num_rows} rows, n_embd {n_embd}"
        launch = partial(ln_fc_gelu, residual, ln_weight, 1e-5, weight, *folded, out=out, use_pdl=use_pdl)
        lines.append(timing.row(case, timing.seconds(launch), num_bytes, bandwidth))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
