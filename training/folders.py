"""Where the commands of the recipe leave things for one another; all but the last are ignored by git."""

from pathlib import Path

CACHE = Path("training/cache")
RUNS = Path("training/runs")
DEMO = Path("model_weights/demo")

HELD_OUT_FILE = "held_out.jsonl"  # as text: evaluation must see the rare tokens, which the packed rows have lost
