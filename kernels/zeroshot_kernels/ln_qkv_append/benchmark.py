"""Time and share of the read bandwidth: `python -m zeroshot_kernels.ln_qkv_append.benchmark`."""

import sys
from functools import partial

import torch

from zeroshot_kernels import timing
from zeroshot_kernels.folded_norm import fold_norm
from zeroshot_kernels.ln_qkv_append.kernel import ln_qkv_append

CASES = [(768, 12, 1), (768, 12, 8), (1600, 25, 1)]
"""n_embd, n_head, rows. Cold: the weights come from memory, as they do when a whole model is read between two uses."""


def main() -> None:
    device = timing.require_cuda()
    bandwidth = timing.read_bandwidth()
    use_pdl = torch.cuda.get_device_capability() >= (9, 0)
    lines = [f"{torch.cuda.get_device_name()}: {bandwidth / 1e12:.2f} TB/s read"]
    for n_embd, n_head, num_rows in CASES:
        weight = torch.randn(3 * n_embd, n_embd, device=device, dtype=torch.bfloat16)
        bias = torch.randn(3 * n_embd, device=device, dtype=torch.bfloat16)
        ln_weight, ln_bias = torch.randn(2, n_embd, device=device, dtype=torch.bfloat16)
        folded = fold_norm(ln_weight, ln_bias, weight, bias)
        residual = torch.randn(num_rows, n_embd, device=device)
        key_cache, value_cache = torch.zeros(8, n_head, 2, 64, 64, device=device, dtype=torch.bfloat16).permute(
            2, 0, 3, 1, 4
        )
        slots = 64 * torch.arange(num_rows, dtype=torch.int32, device=device)
        out = torch.empty(num_rows, n_head, 64, device=device, dtype=torch.bfloat16)
        num_bytes = 2 * weight.numel()
        case = f"{num_rows} rows, n_embd {n_embd}"
        launch = partial(
            ln_qkv_append,
            residual,
            ln_weight,
            1e-5,
            weight,
            *folded,
            slots,
            key_cache,
            value_cache,
            out=out,
            use_pdl=use_pdl,
        )
        lines.append(timing.row(case, timing.seconds(launch), num_bytes, bandwidth))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
