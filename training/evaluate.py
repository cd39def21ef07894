"""Held-out scores of an exported folder: `python -m training.evaluate --data DIR`.

Nothing scored here was trained on: the files under `eval/` never are, and `training/cache/held_out.jsonl` holds the
documents that `training.prepare` set aside before it wrote any demonstration.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from training import demonstrations as show
from training.clean import normalise
from training.corpora import CorpusError, find, read_jsonl, read_pairs
from training.decode import LanguageModel
from training.folders import CACHE, DEMO, HELD_OUT_FILE
from training.metrics import Report, answer_accuracy, bleu_both_ways, perplexity, sentiment_accuracy

PERPLEXITY_TOKENS = 60_000  # of each text: the perplexity is then stable to two digits
SAMPLES = (
    ("English", "French", "I am hungry."),
    ("English", "French", "Where is the train station?"),
    ("English", "French", "My brother works in a big city."),
    ("English", "French", "She wants to buy a new car."),
    ("French", "English", "Je ne sais pas où il habite."),
    ("French", "English", "Il fait très froid aujourd'hui."),
)


def held_out_documents(cache: Path, *sources: str) -> list[tuple[str, str]]:
    """(given, scored) texts of these sources, set aside by `training.prepare`."""
    path = cache / "main" / HELD_OUT_FILE
    if not path.is_file():
        raise CorpusError(f"{path} is missing: run `python -m training.prepare --data DIR` first")
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(record["given"], record["scored"]) for record in records if record["source"] in sources]


def sst2_prompts(data: Path) -> list[tuple[str, str]]:
    """The test set of SST-2 as (prompt, label)."""
    records = read_jsonl(find(data, "eval/sst2_test.jsonl.gz"))
    return [(show.SENTIMENT.format(text=record["text"]), show.LABELS[record["label"]]) for record in records]


def measurements(model: LanguageModel, data: Path, cache: Path) -> Iterator[tuple[str, str, Callable[[], Report]]]:
    """(group, name, function that measures): the functions run later, one by one, so that progress can be shown."""
    pairs = read_pairs(find(data, "eval/tatoeba_eng_fra_heldout.tsv.gz"))
    yield "translation", "tatoeba", partial(bleu_both_ways, model, pairs)
    yield "sentiment", "sst2_test", partial(sentiment_accuracy, model, sst2_prompts(data))
    reviews = [(given, label.strip()) for given, label in held_out_documents(cache, "sentence_polarity")]
    yield "sentiment", "sentence_polarity_held_out", partial(sentiment_accuracy, model, reviews)
    questions = [(r["question"], r["answers"]) for r in read_jsonl(find(data, "eval/webquestions_test.jsonl.gz"))]
    yield "answers", "webquestions_test", partial(answer_accuracy, model, questions)
    books = read_jsonl(find(data, "eval/books_heldout.jsonl.gz"))
    texts = {
        "held_out_translations": held_out_documents(cache, "tatoeba"),
        "held_out_prose": held_out_documents(cache, "books", "speeches"),
        "held_out_summaries": held_out_documents(cache, "scitldr"),
        "unseen_books": [("", normalise(book["text"])) for book in books],
    }
    for name, documents in texts.items():
        yield "perplexity", name, partial(perplexity, model, documents, max_tokens=PERPLEXITY_TOKENS)


def samples(model: LanguageModel) -> list[dict[str, str]]:
    """A few prompts of translate.yaml with what the model says, for the model card."""
    prompts = [show.TRANSLATE.format(source=source, target=target, text=text) for source, target, text in SAMPLES]
    return [{"prompt": p, "output": line} for p, line in zip(prompts, model.complete_lines(prompts), strict=True)]


def as_table(scores: dict[str, Any]) -> Table:
    """Every number of `scores` in a row of its own."""
    table = Table("measured", "value", title="held-out scores")
    for group, reports in scores.items():
        for name, value in _flatten(reports):
            table.add_row(f"{group}: {name}", str(value))
    return table


def _flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flatten(inner, f"{path} {name}".strip())
    elif not isinstance(value, list):
        yield path, value


def main(
    data: Annotated[Path, typer.Option(help="Folder with the corpora: train/, eval/.")],
    model: Annotated[Path, typer.Option(help="The exported folder.")] = DEMO,
    cache: Annotated[Path, typer.Option(help="Where `training.prepare` left the held-out documents.")] = CACHE,
    out: Annotated[Path | None, typer.Option(help="Where scores go; `scores.json` in the model's folder.")] = None,
) -> None:
    """Score a folder on text it never saw. Example: python -m training.evaluate --data corpora"""
    console = Console()
    loaded = LanguageModel.load(model)
    scores: dict[str, Any] = {}
    try:
        for group, name, measure in measurements(loaded, data, cache):
            with console.status(f"{group}: {name}"):
                scores.setdefault(group, {})[name] = measure()
    except CorpusError as error:
        raise typer.BadParameter(str(error)) from None
    scores["samples"] = samples(loaded)
    path = out or model / "scores.json"
    path.write_text(json.dumps(scores, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    console.print(as_table(scores))
    for sample in scores["samples"]:
        console.print(f"{sample['prompt']} {sample['output']}", highlight=False)
    console.print(f"written to {path}")


if __name__ == "__main__":
    typer.run(main)
