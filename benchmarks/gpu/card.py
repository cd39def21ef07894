"""(b) What this card can do: the rates that all ratios are taken to."""

import torch

from benchmarks.gpu.run import Run


def measure(run: Run) -> None:
    """Into results["card_name"], and ["card"]: bytes a second read and copied (both ways counted), FLOP a second."""
    num_values, side = (2**30, 8192) if not run.is_dry else (2**16, 64)
    content = torch.zeros(num_values, device=run.device)
    copied = torch.empty_like(content)
    a, b = torch.randn(2, side, side, device=run.device, dtype=run.sizes.dtype)
    read_s = run.seconds(content.amax, is_cold=False)
    copy_s = run.seconds(lambda: copied.copy_(content), is_cold=False)
    matrix_s = run.seconds(lambda: a @ b, is_cold=False)
    run.results["card_name"] = "dry run" if run.is_dry else torch.cuda.get_device_name()
    run.results["card"] = {
        "read_bytes_per_s": 4 * num_values / read_s,
        "copy_bytes_per_s": 8 * num_values / copy_s,
        "matrix_flop_per_s": 2 * side**3 / matrix_s,
    }
