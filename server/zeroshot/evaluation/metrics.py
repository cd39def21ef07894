"""Scores of answers: exact match as SQuAD defines it, accuracies with their standard error."""

import importlib
import math
import re
import string
from collections.abc import Iterable, Sequence
from types import ModuleType

from zeroshot.evaluation.corpora import Skipped
from zeroshot.evaluation.protocol import Measurement

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """SQuAD's (Rajpurkar et al. 2016): lower case; no punctuation, no articles; single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def is_exact_match(answer: str, golds: Iterable[str]) -> bool:
    """True if the answer is one of the gold answers once both are normalised. An empty answer never is."""
    normalized = normalize_answer(answer)
    return bool(normalized) and normalized in {normalize_answer(gold) for gold in golds}


def accuracy(key: str, hits: Sequence[bool], total: int, notes: tuple[str, ...] = ()) -> Measurement:
    """Percent, with the standard error of a proportion."""
    share = sum(hits) / len(hits)
    stderr = 100 * math.sqrt(share * (1 - share) / len(hits))
    return Measurement(key, 100 * share, len(hits), total, stderr, notes)


def library(module: str, package: str) -> ModuleType:
    """Import a library that only evaluations use. Raises Skipped with the way to get it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise Skipped(f"needs {package}: pip install {package}") from None
