"""Numbers of `zeroshot eval` against the same numbers computed with Hugging Face's GPT-2, one example at a time."""

import json
import math
import re

import pytest
import torch

from zeroshot.evaluation.datasets.lambada import stop_token_ids
from zeroshot.evaluation.datasets.winograd import parse

MAX_LEN = 256
EOS = 50256
STRIDE = 100


def log_softmax(run, token_ids, start):
    """[len(token_ids) - start, vocab_size]: the log-probabilities of tokens `start` and on."""
    with torch.no_grad():
        logits = run.model.model(torch.tensor([token_ids])).logits[0, start - 1 : -1]
    return logits.double().log_softmax(-1)


def logprob(run, token_ids, start):
    rows = log_softmax(run, token_ids, start)
    return float(rows.gather(-1, torch.tensor(token_ids[start:])[:, None]).sum())


def nats_of_text(run, token_ids):
    """The loop of Hugging Face's "Perplexity of fixed-length models", with an end of text before the text."""
    ids, total, previous_end = [EOS, *token_ids], 0.0, 1
    for begin in range(0, len(ids), STRIDE):
        end = min(begin + MAX_LEN, len(ids))
        total -= logprob(run, ids[begin:end], previous_end - begin)
        previous_end = end
        if end == len(ids):
            break
    return total


def lines(run, name):
    return (run.data / name).read_text(encoding="utf-8").splitlines()


def records(run, name):
    return [json.loads(line) for line in lines(run, name)]


def as_text(line):
    return re.sub(r" ([.,]|'s)", r"\1", line.strip())


def test_wikitext_perplexity(run):
    """De-tokenised here by a few replacements that are enough for the made-up text."""
    corpus = lines(run, "wiki.test.tokens")
    text = "".join(f"{as_text(line)}\n" for line in corpus)
    num_tokens = sum(len(line.split()) for line in corpus) + len(corpus)
    token_ids = run.tokenizer.encode(text)
    assert len(token_ids) > 2 * MAX_LEN
    nats = nats_of_text(run, token_ids)
    assert run.value("wikitext2", "perplexity") == pytest.approx(math.exp(nats / num_tokens), rel=1e-3)
    expected = math.exp(nats / len(token_ids))
    assert run.value("wikitext2", "perplexity_gpt2_token") == pytest.approx(expected, rel=1e-3)


def test_books_perplexity(run):
    texts = [record["text"] for record in records(run, "books_heldout.jsonl")]
    nats = sum(nats_of_text(run, run.tokenizer.encode(text)) for text in texts)
    num_words = sum(len(text.split()) for text in texts)
    assert run.value("books", "perplexity") == pytest.approx(math.exp(nats / num_words), rel=1e-3)


def test_lambada(run):
    stop_ids = list(stop_token_ids(run.tokenizer))
    hits = {"word": 0, "word_filtered": 0, "last_token": 0, "last_token_filtered": 0}
    word_nats, last_nats = [], []
    texts = [record["text"] for record in records(run, "lambada_test.jsonl")]
    for text in texts:
        context, word = text.rsplit(" ", 1)
        prompt, target = run.tokenizer.encode(context), run.tokenizer.encode(f" {word}")
        rows = log_softmax(run, prompt + target, len(prompt))
        filtered = rows.clone()
        filtered[:, stop_ids] = -torch.inf
        greedy = rows.argmax(-1).tolist()
        hits["word"] += greedy == target
        hits["word_filtered"] += [int(filtered[0].argmax()), *greedy[1:]] == target
        hits["last_token"] += greedy[-1] == target[-1]
        hits["last_token_filtered"] += int(filtered[-1].argmax()) == target[-1]
        chosen = [float(row[token_id]) for row, token_id in zip(rows, target, strict=True)]
        word_nats.append(-sum(chosen))
        last_nats.append(-chosen[-1])
    for key, count in hits.items():
        assert run.value("lambada", f"accuracy_{key}") == pytest.approx(100 * count / len(texts))
    mean = sum(word_nats) / len(texts)
    assert run.value("lambada", "perplexity_word") == pytest.approx(math.exp(mean), rel=1e-3)
    assert run.value("lambada", "perplexity_last_token") == pytest.approx(
        math.exp(sum(last_nats) / len(texts)), rel=1e-3
    )


@pytest.mark.parametrize("scoring", ["partial", "full"])
def test_winograd(run, scoring):
    right = 0
    examples = records(run, "wsc273.jsonl")
    for record in examples:
        before, after = record["sentence"].split("_")
        scores = []
        for name in ("option1", "option2"):
            option = record[name].replace("The", "the")
            head, tail = run.tokenizer.encode(before + option), run.tokenizer.encode(after)
            ids, start = ([EOS, *head, *tail], 1) if scoring == "full" else ([*head, *tail], len(head))
            scores.append(logprob(run, ids, start))
        right += record["answer"] == ("1" if scores[0] > scores[1] else "2")
    assert 0 < right < len(examples), "made-up schemas that any scoring gets right would prove nothing"
    assert run.value("winograd", scoring) == pytest.approx(100 * right / len(examples))


def test_childrens_book_test(run):
    right, blocks = 0, (run.data / "cbtest_CN_valid_2000ex.txt").read_text().strip().split("\n\n")
    for block in blocks:
        *story, query = [line.split(" ", 1)[1] for line in block.split("\n")]
        context = " ".join(as_text(line) for line in story)
        _, answer, _, choices = query.split("\t")
        scores = {}
        for choice in choices.split("|"):
            prompt, target = run.tokenizer.encode(f"{context} The"), run.tokenizer.encode(f" {choice} was here.")
            ids = (prompt + target)[-MAX_LEN:]
            scores[choice] = logprob(run, ids, len(ids) - len(target))
        right += max(scores, key=scores.get) == answer
    assert len(ids) == MAX_LEN, "contexts too long for the model are part of the test"
    assert run.value("cbt-cn", "accuracy") == pytest.approx(100 * right / len(blocks))


def test_sentiment_without_calibration(run):
    right, examples = 0, records(run, "sst2_test.jsonl")
    for record in examples:
        prompt = run.tokenizer.encode(f"Review: {record['text']}\nSentiment:")
        labels = [run.tokenizer.encode(label) for label in (" negative", " positive")]
        scores = [logprob(run, prompt + label, len(prompt)) for label in labels]
        right += scores.index(max(scores)) == record["label"]
    assert run.value("sst2", "none") == pytest.approx(100 * right / len(examples))


def test_what_has_no_data_is_skipped_with_a_reason(run):
    measured = {"wikitext2", "ptb", "cbt-cn", "lambada", "winograd", "natural-questions", "sst2", "books"}
    for outcome in run.report.outcomes:
        if outcome.name in measured:
            assert outcome.status == "measured", outcome.reason
            assert outcome.files
            assert all(row.count == row.total for row in outcome.rows)
        else:
            assert outcome.status == "skipped"
            assert "the data folder has no" in outcome.reason
            assert str(run.data) not in outcome.reason, "reports are published"
            assert outcome.rows == []


def test_a_schema_is_read_as_it_was_scored(run):
    """The sentences in `test_winograd` are put together by hand: the same ones that the evaluation makes."""
    record = records(run, "wsc273.jsonl")[0]
    schema = parse(record)
    assert f"{schema.before} {schema.options[0]}{schema.after}" == record["sentence"].replace(
        "_", record["option1"].replace("The", "the")
    )
