"""Penn Treebank, Mikolov's edition (Mikolov et al. 2010), test set; and editions that keep case and punctuation."""

from functools import partial

from zeroshot.evaluation.corpora import DataFile
from zeroshot.evaluation.datasets.corpus_text import corpus_perplexity
from zeroshot.evaluation.perplexity import WINDOWS, text_metrics
from zeroshot.evaluation.protocol import Evaluation

MIKOLOV = DataFile(
    ("ptb_mikolov_test.txt", "ptb.test.txt"),
    "lower-case words with spaces between them, <unk> for rare ones, N for numbers, one sentence a line",
    "the test set of Mikolov's preprocessed Penn Treebank",
)
CASED = DataFile(
    ("ptb_cased_test.txt",),
    "tokens with spaces between them, cased, with punctuation; one sentence a line, with or without <eos> at its end",
    "any Penn Treebank text with its case and punctuation left in",
)
_UNIT = "original token"
_RULES = "invertible de-tokeniser; <unk> and N stay"

EVALUATIONS = (
    Evaluation(
        name="ptb",
        title="Penn Treebank",
        section="3.1, table 3",
        files=(MIKOLOV,),
        protocol=(
            "All sentences, a line each, as one text after an end-of-text token; log-probability divided by the number "
            f"of original tokens: words and line ends. {WINDOWS}"
        ),
        metrics=text_metrics(
            _UNIT,
            (65.85, 47.33, 40.31, 35.76),
            _RULES,
            differs="the paper publishes neither its de-tokeniser nor its stride",
        ),
        run=partial(corpus_perplexity, file=MIKOLOV),
        needs_scores=True,
    ),
    Evaluation(
        name="ptb-cased",
        title="Penn Treebank, cased",
        section="",
        files=(CASED,),
        protocol="As ptb, on text with case and punctuation: another text than Mikolov's, not comparable with it.",
        metrics=text_metrics(_UNIT, None, "invertible de-tokeniser"),
        run=partial(corpus_perplexity, file=CASED),
        needs_scores=True,
    ),
)
