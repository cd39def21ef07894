"""Translation between English and French: BLEU, in both wordings of the task `translate`."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any

from zeroshot.errors import InvalidRequest
from zeroshot.evaluation.backend import for_each
from zeroshot.evaluation.corpora import DataFile, DataFolder, sample
from zeroshot.evaluation.metrics import library
from zeroshot.evaluation.protocol import Evaluation, Measurement, Metric, PaperNumbers, Run

Pairs = list[tuple[str, str]]

WMT14 = DataFile(("wmt14_test_enfr.jsonl",), 'JSONL: {"en": ..., "fr": ...}', "newstest2014 of WMT-14, English-French")
NTREX = DataFile(
    ("ntrex_newstest2019_enfr.jsonl",),
    'JSONL: {"en": ..., "fr": ...}',
    "newstest2019 in English with the French of NTREX-128",
)
TATOEBA = DataFile(
    ("tatoeba_eng_fra_heldout.tsv",),
    "English TAB French, one pair a line; a sentence may come again with another translation",
    "sentence pairs of Tatoeba, such as the manythings.org/anki edition",
)
_MAX_CHARS = 4000  # what the task accepts
_EXAMPLES = (  # the pairs of prompts/translate.yaml, here because the other direction needs them turned round
    ("Good morning.", "Bonjour."),
    ("Where is the station?", "Où est la gare ?"),
    ("My brother lives in a small house near the sea.", "Mon frère habite une petite maison près de la mer."),
    ("I do not know what to say.", "Je ne sais pas quoi dire."),
)
_DIRECTIONS = {"en_fr": ("English", "French"), "fr_en": ("French", "English")}
_STYLES = ("pairs", "instruction")


def read_jsonl(data: DataFolder, file: DataFile) -> Pairs:
    return [(str(record["en"]), str(record["fr"])) for record in data.records(file, "en", "fr")]


def read_tsv(data: DataFolder, file: DataFile) -> Pairs:
    """Raises InvalidRequest with the line that has no TAB."""
    pairs = []
    for number, line in enumerate(data.text(file).split("\n"), start=1):
        if line.strip():
            english, tab, french = line.partition("\t")
            if not tab:
                raise InvalidRequest(f"{data.path(file).name}:{number}: expected {file.format}.")
            pairs.append((english.strip(), french.split("\t")[0].strip()))
    return pairs


def references(pairs: Pairs) -> dict[str, list[str]]:
    """Every source sentence once, with all its translations."""
    grouped: dict[str, list[str]] = defaultdict(list)
    for source, target in pairs:
        if target not in grouped[source]:
            grouped[source].append(target)
    return dict(grouped)


def bleu(translations: Sequence[str], golds: Sequence[Sequence[str]]) -> tuple[float, str]:
    """Corpus BLEU and sacrebleu's signature of how it was computed. Raises Skipped without sacrebleu."""
    metric = library("sacrebleu.metrics", "sacrebleu").BLEU()
    # sacrebleu wants streams: the first reference of all sentences, the second where there is one, and so on.
    streams = [list(stream) for stream in zip_longest(*golds)]
    value = float(metric.corpus_score(list(translations), streams).score)
    return value, f"sacrebleu {metric.get_signature()}"


@dataclass(frozen=True, slots=True)
class _Direction:
    """Sentences to translate, with what is right, in one direction and one wording."""

    name: str
    style: str
    items: list[tuple[str, list[str]]]
    total: int

    def bodies(self) -> list[dict[str, Any]]:
        """What to ask the task."""
        source, target = _DIRECTIONS[self.name]
        turned = [pair if source == "English" else pair[::-1] for pair in _EXAMPLES]
        how: dict[str, Any] = {"source": source, "target": target}
        if self.style == "pairs":
            how = {"pairs": [f"{text} = {translation}" for text, translation in turned]}
        return [{"text": text[:_MAX_CHARS], "style": self.style, "truncate": True, **how} for text, _ in self.items]


async def measure(run: Run, file: DataFile, read: Callable[[DataFolder, DataFile], Pairs]) -> list[Measurement]:
    library("sacrebleu.metrics", "sacrebleu")  # before minutes of generating
    directions = list(_directions(run, read(run.data, file)))

    async def translate(body: dict[str, Any]) -> str:
        return str((await run.backend.task("translate", body))["output"])

    outputs = iter(await for_each(run, [body for item in directions for body in item.bodies()], translate))
    measurements = []
    for item in directions:
        translations = [next(outputs) for _ in item.items]
        value, signature = bleu(translations, [golds for _, golds in item.items])
        notes = (signature, f"{sum(not text for text in translations)} empty translations")
        measurements.append(Measurement(f"{item.name}_{item.style}", value, len(item.items), item.total, notes=notes))
    return measurements


def _directions(run: Run, pairs: Pairs) -> Iterator[_Direction]:
    for name in _DIRECTIONS:
        grouped = references(pairs if name == "en_fr" else [pair[::-1] for pair in pairs])
        items = sample(list(grouped.items()), run.limit, run.seed)
        for style in _STYLES:
            yield _Direction(name, style, items, len(grouped))


def _metrics(papers: Mapping[str, PaperNumbers], differs: str) -> tuple[Metric, ...]:
    wordings = {
        "pairs": "after four pairs `sentence = translation`",
        "instruction": "`translate X to Y: sentence =`",
    }
    return tuple(
        Metric(
            f"{direction}_{style}",
            f"BLEU {source}-{target}",
            wordings[style],
            paper=papers.get(direction) if style == "pairs" else None,
            differs=differs if style == "pairs" else "",
        )
        for direction, (source, target) in _DIRECTIONS.items()
        for style in _STYLES
    )


def _evaluation(
    name: str,
    title: str,
    file: DataFile,
    read: Callable[[DataFolder, DataFile], Pairs],
    paper: Mapping[str, PaperNumbers],
    differs: str = "",
) -> Evaluation:
    return Evaluation(
        name=name,
        title=title,
        section="3.7" if paper else "",
        files=(file,),
        protocol=(
            "The task `translate`, greedy, the first sentence that is generated; every source sentence once, all its "
            "translations as references. The paper's wording is the one with example pairs; it doesn't name its pairs."
        ),
        metrics=_metrics(paper, differs),
        run=partial(measure, file=file, read=read),
        shows="translation",
    )


_PAPER: dict[str, PaperNumbers] = {"en_fr": (None, None, None, 5.0), "fr_en": (None, None, None, 11.5)}

EVALUATIONS = (
    _evaluation("wmt14", "WMT-14", WMT14, read_jsonl, _PAPER, "the paper's example pairs are not published"),
    _evaluation("ntrex", "newstest2019 (NTREX)", NTREX, read_jsonl, _PAPER, "the paper's number is for WMT-14"),
    _evaluation("tatoeba", "Tatoeba", TATOEBA, read_tsv, {}),
)
