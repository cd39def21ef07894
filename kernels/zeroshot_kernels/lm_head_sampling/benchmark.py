"""Time and share of the read bandwidth, fused and apart: `python -m zeroshot_kernels.lm_head_sampling.benchmark`."""

import sys
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshot_kernels import timing
from zeroshot_kernels.lm_head_sampling.kernel import lm_head_sampling
from zeroshot_kernels.sampling.kernel import SamplingWorkspace, empty_samples, sampling

VOCAB_SIZE = 50257


def main() -> None:
    device = timing.require_cuda()
    bandwidth = timing.read_bandwidth()
    lines = [f"{torch.cuda.get_device_name()}: {bandwidth / 1e12:.2f} TB/s read"]
    for n_embd in (768, 1600):
        lm_head = torch.randn(VOCAB_SIZE, n_embd, device=device, dtype=torch.bfloat16) * n_embd**-0.5
        for num_rows in (1, 8, 16, 32, 64, 128, 512):
            hidden = torch.randn(num_rows, n_embd, device=device, dtype=torch.bfloat16)
            temperatures, positions = torch.ones(num_rows, device=device), torch.arange(num_rows, device=device)
            drawn_by = (positions, positions, positions)
            off = torch.zeros_like(temperatures)
            workspace = SamplingWorkspace.allocate(num_rows, VOCAB_SIZE, device)
            out = empty_samples(num_rows, device)

            fused = partial(lm_head_sampling, hidden, lm_head, temperatures, *drawn_by, out=out, workspace=workspace)
            filters = (temperatures, off.int(), off + 1, off)
            apart = partial(_apart, hidden, lm_head, *filters, *drawn_by, out=out, workspace=workspace)
            num_bytes = 2 * n_embd * (VOCAB_SIZE + num_rows)
            for name, function in (("fused", fused), ("cuBLAS, then sampling", apart)):
                case = f"{num_rows} rows, n_embd {n_embd}, {name}"
                lines.append(timing.row(case, timing.seconds(function), num_bytes, bandwidth))
    sys.stdout.write("\n".join(lines) + "\n")


def _apart(hidden: Tensor, lm_head: Tensor, *parameters: Tensor, **buffers: Any) -> None:
    sampling(F.linear(hidden, lm_head).float(), *parameters, **buffers)


if __name__ == "__main__":
    main()
