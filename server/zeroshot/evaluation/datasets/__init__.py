"""One module a data set. `ALL` is the registry: what `zeroshot eval` can measure, in the order of the paper."""

from zeroshot.evaluation.datasets.books import EVALUATIONS as BOOKS
from zeroshot.evaluation.datasets.cbt import EVALUATIONS as CBT
from zeroshot.evaluation.datasets.lambada import EVALUATIONS as LAMBADA
from zeroshot.evaluation.datasets.ptb import EVALUATIONS as PTB
from zeroshot.evaluation.datasets.questions import EVALUATIONS as QUESTIONS
from zeroshot.evaluation.datasets.reading import EVALUATIONS as READING
from zeroshot.evaluation.datasets.sentiment import EVALUATIONS as SENTIMENT
from zeroshot.evaluation.datasets.summarization import EVALUATIONS as SUMMARIZATION
from zeroshot.evaluation.datasets.translation import EVALUATIONS as TRANSLATION
from zeroshot.evaluation.datasets.wikitext import EVALUATIONS as WIKITEXT
from zeroshot.evaluation.datasets.winograd import EVALUATIONS as WINOGRAD
from zeroshot.evaluation.protocol import Evaluation

ALL: tuple[Evaluation, ...] = (
    *WIKITEXT,
    *PTB,
    *CBT,
    *LAMBADA,
    *WINOGRAD,
    *SUMMARIZATION,
    *TRANSLATION,
    *QUESTIONS,
    *READING,
    *SENTIMENT,
    *BOOKS,
)
