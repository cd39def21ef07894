"""WikiText-2 (Merity et al. 2017), test set: the tokenised edition with <unk>, as in the paper, and the raw one."""

from functools import partial

from zeroshot.evaluation.corpora import DataFile
from zeroshot.evaluation.datasets.corpus_text import corpus_perplexity
from zeroshot.evaluation.perplexity import WINDOWS, text_metrics
from zeroshot.evaluation.protocol import Evaluation

TOKENISED = DataFile(
    ("wikitext2_tok_test.txt", "wiki.test.tokens"),
    "text with spaces around every token, <unk> for rare words, one paragraph a line",
    "the test set of WikiText-2, word level, as Merity et al. 2017 published it",
)
RAW = DataFile(
    ("wikitext2_raw_test.txt", "wiki.test.raw"),
    "the same text with the rare words in it",
    "the test set of WikiText-2, raw character level, as Merity et al. 2017 published it",
)
_PAPER = (29.41, 22.76, 19.93, 18.34)
_UNIT = "original token"
_RULES = "invertible de-tokeniser; <unk> stays"
_DIFFERS = "the paper publishes neither its de-tokeniser nor its stride"

EVALUATIONS = (
    Evaluation(
        name="wikitext2",
        title="WikiText-2",
        section="3.1, table 3",
        files=(TOKENISED,),
        protocol=(
            "The whole test set as one text after an end-of-text token; log-probability divided by the number of "
            f"original tokens: words and line ends. {WINDOWS}"
        ),
        metrics=text_metrics(_UNIT, _PAPER, _RULES, differs=_DIFFERS),
        run=partial(corpus_perplexity, file=TOKENISED),
        needs_scores=True,
    ),
    Evaluation(
        name="wikitext2-raw",
        title="WikiText-2 raw",
        section="",
        files=(RAW,),
        protocol="As wikitext2, on the edition without <unk>; not the paper's, but the one most often quoted since.",
        metrics=text_metrics(_UNIT, None, "invertible de-tokeniser"),
        run=partial(corpus_perplexity, file=RAW),
        needs_scores=True,
    ),
)
