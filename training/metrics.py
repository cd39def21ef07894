"""What is measured, one function a task; each takes a model and examples and returns plain numbers with their baseline.

Prompts are those of `prompts/*.yaml`, word for word.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from sacrebleu.metrics.bleu import BLEU

from training import demonstrations as show
from training.clean import normalise
from training.decode import LanguageModel, Scored
from training.dedupe import fold
from training.vocabulary import END_OF_TEXT_ID

CONTEXT = 1024

Report = dict[str, Any]


def bleu_both_ways(model: LanguageModel, pairs: Sequence[tuple[str, str]]) -> Report:
    """BLEU in both directions; all translations of one sentence are its references."""
    backwards = [(french, english) for english, french in pairs]
    return {
        "english_to_french": _bleu(model, pairs, ("English", "French")),
        "french_to_english": _bleu(model, backwards, ("French", "English")),
    }


def _bleu(model: LanguageModel, pairs: Sequence[tuple[str, str]], languages: tuple[str, str]) -> Report:
    references: dict[str, list[str]] = defaultdict(list)
    for text, target in pairs:
        references[normalise(text)].append(normalise(target))
    texts = list(references)
    prompts = [show.TRANSLATE.format(source=languages[0], target=languages[1], text=text) for text in texts]
    lines = model.complete_lines(prompts)
    metric = BLEU()
    columns = transpose([references[text] for text in texts])
    score = metric.corpus_score(lines, columns)
    exact = sum(line in references[text] for line, text in zip(lines, texts, strict=True))
    return {
        "bleu": round(score.score, 2),
        "baseline_copy_the_source": round(BLEU().corpus_score(texts, columns).score, 2),
        "exactly_a_reference": round(exact / len(texts), 4),
        "sentences": len(texts),
        "references": sum(map(len, references.values())),
        "signature": str(metric.get_signature()),
    }


def transpose(references: Sequence[Sequence[str]]) -> list[list[str]]:
    """References by sentence -> sacrebleu's columns: the i-th reference of every sentence, "" where it has fewer."""
    most = max(map(len, references))
    return [[row[column] if column < len(row) else "" for row in references] for column in range(most)]


def sentiment_accuracy(model: LanguageModel, prompts: Sequence[tuple[str, str]]) -> Report:
    """The label with the largest log-probability after each prompt, against the truth: (prompt, label) pairs."""
    labels = list(show.LABELS.values())
    rows = [(model.encode(prompt), model.encode(f" {label}")) for prompt, _ in prompts for label in labels]
    scores = [float(logprobs.sum()) for logprobs in model.logprobs(rows)]
    by_prompt = [
        dict(zip(labels, scores[i : i + len(labels)], strict=True)) for i in range(0, len(scores), len(labels))
    ]
    picks = [max(by_label, key=by_label.__getitem__) for by_label in by_prompt]
    right = sum(pick == label for pick, (_, label) in zip(picks, prompts, strict=True))
    majority = Counter(label for _, label in prompts).most_common(1)[0][1]
    return {
        "accuracy": round(right / len(prompts), 4),
        "baseline_majority": round(majority / len(prompts), 4),
        "reviews": len(prompts),
    }


def answer_accuracy(model: LanguageModel, questions: Sequence[tuple[str, Sequence[str]]]) -> Report:
    """Exact match, case and punctuation folded, after the three examples of prompts/answer.yaml."""
    shots = "".join(show.ANSWER.format(question=question) + f" {answer}\n" for question, answer in show.ANSWER_EXAMPLES)
    prompts = [shots + show.ANSWER.format(question=question) for question, _ in questions]
    lines = model.complete_lines(prompts, max_tokens=32)
    right = sum(fold(line) in map(fold, answers) for line, (_, answers) in zip(lines, questions, strict=True))
    return {"exact_match": round(right / len(questions), 4), "questions": len(questions)}


def perplexity(model: LanguageModel, texts: Sequence[tuple[str, str]], *, max_tokens: int) -> Report:
    """exp of the mean cross-entropy per token over the first `max_tokens` tokens of (given, scored) texts.

    `perplexity_of_trained_tokens` leaves out tokens without a row of their own: the model gives them no probability
    to speak of, and each counts for about ten nats.
    """
    rows: list[Scored] = []
    for given, scored in texts:
        rows += windows(model.encode(given), model.encode(scored))
        if sum(len(row) for _, row in rows) >= max_tokens:
            break
    logprobs = torch.cat(model.logprobs(rows))
    trained = model.has_own_row()[torch.tensor([token for _, row in rows for token in row])]
    return {
        "perplexity": round(math.exp(-float(logprobs.mean())), 2),
        "perplexity_of_trained_tokens": round(math.exp(-float(logprobs[trained].mean())), 2),
        "share_of_trained_tokens": round(float(trained.float().mean()), 4),
        "tokens": len(trained),
    }


def windows(given: list[int], scored: list[int]) -> list[Scored]:
    """A text with a prompt is one window; a text without one is cut every 1023 tokens, each after `<|endoftext|>`."""
    if given:
        return [(given, scored)]
    size = CONTEXT - 1
    return [([END_OF_TEXT_ID], scored[start : start + size]) for start in range(0, len(scored), size)]
