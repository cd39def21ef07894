"""What went into the rows: counts, sources and licences, as JSON beside the weights, where people look for it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from training.corpora import SOURCES
from training.encoding import MIN_COUNT, Prepared
from training.mixture import MIXTURES, Passes
from training.packing import Rows
from training.part import Part


def manifest(parts: Sequence[Part], passes: Passes, prepared: Prepared, *, seed: int) -> dict[str, object]:
    """Everything a reader of the model card may want to check."""
    counts = {part.source: part.counts() for part in parts}
    return {
        "seed": seed,
        "passes": asdict(passes),
        "sources": [
            {**asdict(source), **counts[source.name], "tokens_train": prepared.tokens_by_source[source.name]}
            for source in SOURCES
        ],
        "vocabulary": {
            "kept": len(prepared.vocabulary.kept),
            "shared": prepared.vocabulary.num_shared,
            "min_count": MIN_COUNT,
        },
        "rows": {name: _describe(rows) for name, rows in prepared.rows.items()},
    }


def add_to_manifest(path: Path, mixture: str, entry: dict[str, object]) -> None:
    """Write the entry of one mixture; that of the other stays."""
    written = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    written[mixture] = entry
    in_order = {name: written[name] for name in MIXTURES if name in written}
    path.write_text(json.dumps(in_order, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _describe(rows: Rows) -> dict[str, float]:
    share = float(np.count_nonzero(rows.weights)) / rows.weights.size
    return {"rows": len(rows.tokens), "row_length": rows.length, "share_of_targets": round(share, 4)}
