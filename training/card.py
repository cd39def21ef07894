"""The model card, written from what was measured: `python -m training.card`.

`card.md` beside this file is the page with `$names` in it; every number comes from a JSON file in the model's folder.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Annotated, Any

import typer
from rich.console import Console
from safetensors import safe_open

from training.folders import DEMO

TEMPLATE = Path(__file__).with_name("card.md")


def render(folder: Path) -> str:
    """The card of the model in `folder`. Raises FileNotFoundError if one of its reports is missing."""
    config, manifest, log, scores = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("config.json", "manifest.json", "training_log.json", "scores.json")
    )
    weights = folder / "model.safetensors"
    main = manifest["main"]
    _, everyday_run, again_run, facts_run = log["stages"]
    values = {
        **{name: config[name] for name in ("n_layer", "n_embd", "n_head", "n_positions")},
        "stage_rows": _stage_rows(log["stages"]),
        "everyday_hours": everyday_run["max_hours"],
        "again_hours": again_run["max_hours"],
        "facts_hours": facts_run["max_hours"],
        "parameters": _millions(_count_parameters(weights)),
        "parameters_trained": _millions(log["parameters_trained"]),
        "kept_rows": f"{main['vocabulary']['kept']:,}",
        "file_mb": f"{weights.stat().st_size / 1e6:.1f}",
        "tokens": _millions(log["tokens"]),
        "steps": f"{log['steps']:,}",
        **{f"{name}_tokens": _millions(_count_tokens(mixture)) for name, mixture in manifest.items()},
        **{f"{name}_share_translation": _share_translation(mixture) for name, mixture in manifest.items()},
        "signature": scores["translation"]["tatoeba"]["english_to_french"]["signature"],
        "sample_table": _sample_table(scores["samples"]),
        "score_table": _score_table(scores),
        "source_table": _source_table(main["sources"]),
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values)


def _millions(number: float) -> str:
    return f"{number / 1e6:.1f} million"


def _count_tokens(mixture: dict[str, Any], name: str | None = None) -> int:
    """Tokens of one source of a mixture, or of all."""
    return sum(source["tokens_train"] for source in mixture["sources"] if name in (None, source["name"]))


def _share_translation(mixture: dict[str, Any]) -> str:
    return f"{_count_tokens(mixture, 'tatoeba') / _count_tokens(mixture):.0%}"


def _count_parameters(weights: Path) -> int:
    total = 0
    with safe_open(weights, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (it is not a mapping)
            size = 1
            for length in file.get_slice(name).get_shape():
                size *= length
            total += size
    return total


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _stage_rows(stages: Sequence[dict[str, Any]]) -> str:
    return "\n".join(
        f"| run {number} | {_millions(run['tokens'])} tokens, {run['steps']:,} steps, {run['wall_time_min']} minutes "
        f"on {run['device']}, threads: {run['threads']}, {run['precision']}, peak learning rate {run['max_lr']:g} |"
        for number, run in enumerate(stages, 1)
    )


def _sample_table(samples: Sequence[dict[str, str]]) -> str:
    return _table(["prompt", "output"], [(f"`{sample['prompt']}`", sample["output"]) for sample in samples])


def _score_table(scores: dict[str, Any]) -> str:
    rows: list[tuple[str, str, str]] = []
    for direction, report in scores["translation"]["tatoeba"].items():
        what = f"BLEU, {direction.replace('_', ' ').title().replace(' To ', ' to ')}, {report['sentences']:,} sentences"
        rows.append((what, f"{report['bleu']:.1f}", f"{report['baseline_copy_the_source']:.1f} (copy the source)"))
    names = {"sst2_test": "SST-2 test", "sentence_polarity_held_out": "held-out sentence polarity"}
    for name, report in scores["sentiment"].items():
        what = f"sentiment accuracy, {names[name]}, {report['reviews']:,} sentences"
        rows.append((what, f"{report['accuracy']:.1%}", f"{report['baseline_majority']:.1%} (the more frequent label)"))
    report = scores["answers"]["webquestions_test"]
    rows.append(
        (f"WebQuestions test, exact match, {report['questions']:,} questions", f"{report['exact_match']:.1%}", "")
    )
    for name, report in scores["perplexity"].items():
        value = f"{report['perplexity']:,.1f}; {report['perplexity_of_trained_tokens']:,.1f}"
        rows.append((f"perplexity, {name.replace('_', ' ')}, {report['tokens']:,} tokens", value, ""))
    return _table(["measured on", "score", "without a model"], rows)


def _source_table(sources: Sequence[dict[str, Any]]) -> str:
    rows = [(s["name"], s["shows"], _millions(s["tokens_train"]), s["licence"], s["credit"]) for s in sources]
    return _table(["source", "shows", "tokens", "licence", "credit"], rows)


def main(
    folder: Annotated[Path, typer.Option(help="The exported model with its three reports.")] = DEMO,
) -> None:
    """Write the folder's README.md. Example: python -m training.card"""
    try:
        page = render(folder)
    except FileNotFoundError as error:
        raise typer.BadParameter(f"{error.filename} is missing: train, export and evaluate first") from None
    (folder / "README.md").write_text(page, encoding="utf-8")
    Console().print(f"written: {folder / 'README.md'}")


if __name__ == "__main__":
    typer.run(main)
