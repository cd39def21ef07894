"""The CPU's result file as a picture, for the README.

python -m benchmarks.cpu_chart        # benchmarks/results/cpu.json -> docs/images/cpu.png
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.command import RESULTS, ROOT
from benchmarks.cpu import levels_of, medians, title

SHOWN = {
    "zeroshot int8, HTTP": "Zeroshot int8, over HTTP",
    "CTranslate2 int8": "CTranslate2 int8",
    "llama.cpp Q8_0": "llama.cpp Q8_0",
    "zeroshot fp32, HTTP": "Zeroshot fp32, over HTTP",
    "CTranslate2 fp32": "CTranslate2 fp32",
    "llama.cpp F32": "llama.cpp F32",
    "Hugging Face generate": "Hugging Face fp32",
}
"""name in the result file -> label, from the top down"""
OURS, PEERS = "#2563eb", "#b6bdc9"


def draw(result: dict[str, Any], file: Path) -> None:
    from matplotlib import pyplot

    rows = medians(result)
    names = [name for name in SHOWN if name in rows]
    levels = levels_of(rows)
    figure, panels = pyplot.subplots(1, len(levels), figsize=(2.6 * len(levels) + 1.4, 2.9), sharey=True)
    for panel, level in zip(panels, levels, strict=True):
        rates = [rows[name][level] for name in names]
        colours = [OURS if name.startswith("zeroshot") else PEERS for name in names]
        bars = panel.barh([SHOWN[name] for name in names], rates, color=colours, height=0.72)
        panel.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
        panel.set_title(title(level), fontsize=10)
        panel.set_xlim(0, max(rates) * 1.22)
        panel.set_xticks([])
        panel.tick_params(left=False, labelsize=9)
        panel.spines[:].set_visible(False)
    panels[0].invert_yaxis()
    figure.suptitle(
        f"Tokens/s, {result['model']}, {result['machine']['cpu']}, {result['threads']} threads", fontsize=10
    )
    figure.tight_layout()
    figure.savefig(file, dpi=140)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, default=RESULTS / "cpu.json")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "cpu.png")
    arguments = parser.parse_args()
    draw(json.loads(arguments.input.read_text()), arguments.output)


if __name__ == "__main__":
    main()
