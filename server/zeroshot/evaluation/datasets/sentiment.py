"""Sentiment of single sentences, SST-2 (Socher et al. 2013), with and without calibration. Not in the paper."""

from zeroshot.evaluation.backend import for_each
from zeroshot.evaluation.corpora import DataFile, sample
from zeroshot.evaluation.metrics import accuracy
from zeroshot.evaluation.protocol import Evaluation, Measurement, Metric, Run

FILE = DataFile(
    ("sst2_test.jsonl",),
    'JSONL: {"text": ..., "label": 1 for positive, 0 for negative}',
    "the test set of SST-2, the two-class Stanford Sentiment Treebank, sentences only",
)
_LABELS = {1: "positive", 0: "negative"}
_CALIBRATIONS = ("none", "contextual", "pmi_dc")


async def measure(run: Run) -> list[Measurement]:
    records = run.data.records(FILE, "text", "label")
    chosen = sample(records, run.limit, run.seed)

    async def is_right(record: dict[str, object]) -> dict[str, bool]:
        body = {"text": record["text"], "truncate": True}
        outputs = {name: await run.backend.task("sentiment", {**body, "calibration": name}) for name in _CALIBRATIONS}
        gold = _LABELS[int(str(record["label"]))]
        return {name: result["output"] == gold for name, result in outputs.items()}

    rows = await for_each(run, chosen, is_right)
    num_positive = sum(int(record["label"]) for record in chosen)
    larger = max(num_positive, len(chosen) - num_positive)
    notes = (f"always the more frequent label gives {100 * larger / len(chosen):.1f} %",)
    return [accuracy(name, [row[name] for row in rows], len(records), notes) for name in _CALIBRATIONS]


EVALUATIONS = (
    Evaluation(
        name="sst2",
        title="SST-2",
        section="",
        files=(FILE,),
        protocol="The task `sentiment`: `positive` or `negative`, whichever is the more probable after `Sentiment:`.",
        metrics=(
            Metric("none", "accuracy %", "no calibration"),
            Metric("contextual", "accuracy %", "contextual calibration (Zhao et al. 2021)"),
            Metric("pmi_dc", "accuracy %", "domain-conditional PMI (Holtzman et al. 2021)"),
        ),
        run=measure,
        shows="sentiment",
    ),
)
