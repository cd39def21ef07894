"""Label and choice scores against Hugging Face on the same weights, and what calibration does to them."""

import asyncio
import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2LMHeadModel

from zeroshot.admission import Admission
from zeroshot.errors import ContextLengthExceeded, InvalidRequest
from zeroshot.tasks.scoring import contextual, continuation, pmi_dc, probabilities, together
from zeroshot.tasks.task import Task
from zeroshot.text.tokenizer import Tokenizer

MOOD = """\
name: mood
summary: The mood of a text.
inputs:
  text: {type: string, truncate: right}
template: "Review: {text}\\nSentiment:"
output: {kind: label, labels: [positive, rather negative, catastrophically bad]}
"""
COREFERENCE = """\
name: who
summary: Who is meant.
inputs:
  before: {type: string}
  after: {type: string}
  options: {type: list}
template: "{before} {option} {after}"
output: {kind: choice, options: options, scoring: partial}
"""
SCORE = """\
name: surprise
summary: How surprising.
inputs: {text: {type: string, min_chars: 0}}
template: "{text}"
output: {kind: score}
"""
YES_OR_NO = """\
name: yes-or-no
summary: Yes or no.
inputs: {text: {type: string}}
template: "{text}\\nAnswer:"
output: {kind: label, labels: ["yes", "no"]}
"""
LABELS = ["positive", "rather negative", "catastrophically bad"]


def truth(hf: GPT2LMHeadModel, prompt_ids: list[int], target_ids: list[int]) -> float:
    """log P(target | prompt) by Hugging Face."""
    with torch.no_grad():
        logits = hf(torch.tensor([prompt_ids + target_ids])).logits[0].double()
    logprobs = torch.log_softmax(logits, -1)
    start = len(prompt_ids)
    return math.fsum(float(logprobs[start + i - 1, token]) for i, token in enumerate(target_ids))


@pytest.fixture
def mood(make_task: Callable[[str], Task]) -> Task:
    return make_task(MOOD)


def test_label_scores_are_hugging_faces(
    mood: Task, run: Callable[..., Any], hf: GPT2LMHeadModel, tokenizer: Tokenizer
) -> None:
    result = run(mood, text="A warm, funny film. <|endoftext|> {text}")
    prompt_ids = tokenizer.encode("Review: A warm, funny film. <|endoftext|> {text}\nSentiment:")
    expected = {label: truth(hf, prompt_ids, tokenizer.encode(f" {label}")) for label in LABELS}
    assert {score.label: score.logprob for score in result.scores} == pytest.approx(expected, abs=1e-4)
    assert {score.label: score.tokens for score in result.scores} == {
        label: len(tokenizer.encode(f" {label}")) for label in LABELS
    }
    total = math.fsum(map(math.exp, expected.values()))
    shares = {label: math.exp(logprob) / total for label, logprob in expected.items()}
    assert {score.label: score.probability for score in result.scores} == pytest.approx(shares, abs=1e-4)
    assert result.output == max(expected, key=lambda label: expected[label]) == result.scores[0].label
    assert result.calibration == "none"


def test_more_labels_than_the_server_can_ever_hold_are_no_matter_of_waiting(
    mood: Task, run: Callable[..., Any], client: Any
) -> None:
    client.admission = Admission(max_seqs=2, max_tokens=10_000)
    with pytest.raises(InvalidRequest, match="3 sequences"):
        run(mood, text="Good.")
    assert client.requests == []


@pytest.mark.parametrize(
    ("labels", "calibration", "field"),
    [("moods", "none", "moods"), ("moods", "contextual", "moods"), (None, "contextual", "calibration")],
)
def test_too_many_labels_are_put_down_to_the_field_that_has_them(
    make_task: Callable[[str], Task],
    run: Callable[..., Any],
    client: Any,
    labels: str | None,
    calibration: str,
    field: str,
) -> None:
    text, body = MOOD, {"text": "Good.", "calibration": calibration}
    if labels is not None:
        text = MOOD.replace("truncate: right}", f"truncate: right}}\n  {labels}: {{type: list}}")
        text, body = text.replace(f"[{', '.join(LABELS)}]", labels), body | {labels: LABELS}
    client.admission = Admission(max_seqs=2 if calibration == "none" else 8, max_tokens=10_000)
    with pytest.raises(InvalidRequest, match="sequences") as raised:
        run(make_task(text), **body)
    assert raised.value.field == field
    assert "in parts" not in raised.value.message
    assert (f"Send fewer {labels}" in raised.value.message) == (labels is not None)
    assert ("et calibration to none" in raised.value.message) == (calibration != "none")


def test_labels_share_the_prompts_blocks(mood: Task, run: Callable[..., Any], client: Any) -> None:
    result = run(mood, text="word " * 60)
    num_shared = (len(client.requests[0].prompt_token_ids) - 2) // 16 * 16
    assert result.usage.cached_tokens == 2 * num_shared
    assert len(client.requests) == 3


def test_of_a_prompt_no_more_is_said_to_be_cached_than_it_has(mood: Task, run: Callable[..., Any]) -> None:
    first, again = (run(mood, text="word " * 60, explain=True) for _ in range(2))
    assert first.explain.cached_tokens == 0
    assert again.explain.cached_tokens == first.usage.cached_tokens // 2
    assert again.usage.cached_tokens > again.explain.prompt_tokens > again.explain.cached_tokens


@pytest.mark.parametrize("length_norm", [False, True])
def test_contextual_calibration_is_that_of_the_paper(
    mood: Task, run: Callable[..., Any], hf: GPT2LMHeadModel, tokenizer: Tokenizer, length_norm: bool
) -> None:
    def shares(text: str) -> list[float]:
        prompt_ids = tokenizer.encode(f"Review: {text}\nSentiment:")
        targets = [tokenizer.encode(f" {label}") for label in LABELS]
        weights = [math.exp(truth(hf, prompt_ids, target) / (len(target) if length_norm else 1)) for target in targets]
        return [weight / sum(weights) for weight in weights]

    result = run(mood, text="A dull film.", calibration="contextual", length_norm=length_norm)
    content_free = [shares(text) for text in ("N/A", "[MASK]", "")]
    priors = [sum(column) / 3 for column in zip(*content_free, strict=True)]
    quotients = [share / prior for share, prior in zip(shares("A dull film."), priors, strict=True)]
    expected = dict(zip(LABELS, [quotient / sum(quotients) for quotient in quotients], strict=True))
    assert {score.label: score.probability for score in result.scores} == pytest.approx(expected, abs=1e-3)
    assert result.calibration == "contextual"


def test_calibration_reads_an_input_as_it_was_cut(
    make_task: Callable[[str], Task], run: Callable[..., Any], client: Any
) -> None:
    text = MOOD.replace("truncate: right}", "}\n  notes: {type: string, default: None, truncate: right}")
    task = make_task(text.replace("Review:", "Notes: {notes}\\nReview:"))
    result = run(task, text="Good.", notes="word " * 1000, calibration="contextual", truncate=True, explain=True)
    assert result.explain.truncated.field == "notes"
    assert max(len(request.prompt_token_ids) for request in client.requests) <= client.max_model_len


@pytest.mark.parametrize("text", ["word" * 300 + "\n", "\n" * 3000 + "."], ids=["cut off", "left over"])
def test_a_space_goes_before_a_label_where_the_text_is_cut(
    make_task: Callable[[str], Task], run: Callable[..., Any], client: Any, text: str
) -> None:
    task = make_task(MOOD.replace("Review: {text}\\nSentiment:", "{text}"))
    result = run(task, text=text, truncate=True, explain=True)
    ending = result.explain.prompt[-1]
    assert ending.isspace() != text[-1].isspace()
    for request, label in zip(client.requests, LABELS, strict=True):
        target_ids = request.prompt_token_ids[request.sampling_params.prompt_logprobs_start :]
        assert client.tokenizer.decode(target_ids) == (label if ending.isspace() else f" {label}")
        assert len(request.prompt_token_ids) <= client.max_model_len


def test_pmi_dc_divides_by_the_domain_premise(
    mood: Task, run: Callable[..., Any], hf: GPT2LMHeadModel, tokenizer: Tokenizer
) -> None:
    result = run(mood, text="A dull film.", calibration="pmi_dc")
    prompt, premise = (tokenizer.encode(text) for text in ("Review: A dull film.\nSentiment:", "Sentiment:"))
    targets = {label: tokenizer.encode(f" {label}") for label in LABELS}
    gains = {label: truth(hf, prompt, ids) - truth(hf, premise, ids) for label, ids in targets.items()}
    total = math.fsum(map(math.exp, gains.values()))
    expected = {label: math.exp(gain) / total for label, gain in gains.items()}
    assert {score.label: score.probability for score in result.scores} == pytest.approx(expected, abs=1e-3)


def test_a_label_too_long_for_the_premise_is_named(
    make_task: Callable[[str], Task], run: Callable[..., Any], client: Any
) -> None:
    text = MOOD.replace("truncate: right}", "truncate: right}\n  moods: {type: list}")
    text = text.replace(f"[{', '.join(LABELS)}]", "moods, calibration: pmi_dc, premise: " + "word " * 200)
    body = {"text": "A dull film.", "moods": ["sad", "sad " * 80 + "indeed"]}
    assert run(make_task(text), **body, calibration="none").output in body["moods"]
    with pytest.raises(ContextLengthExceeded, match="longest label") as raised:
        run(make_task(text), **body)
    assert raised.value.field == "moods"


def test_calibration_takes_a_bias_of_the_model_out(
    make_task: Callable[[str], Task],
    checkpoint: Callable[..., Any],
    tokenizer: Tokenizer,
    load_engine: Callable[..., Any],
    in_process: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """A model made to say " no" whatever it reads: calibrated, it says what it said before."""
    mild = checkpoint(vocab_size=50257, n_positions=256, n_embd=64, n_layer=2, n_head=4, initializer_range=0.03)
    model = copy.deepcopy(mild.model)
    no = model.transformer.wte.weight[tokenizer.encode(" no")[0]].detach()
    model.transformer.ln_f.bias.data += 6 * no / no.dot(no)
    model.save_pretrained(tmp_path)
    plain, biased = (
        in_process(load_engine(folder, kv_cache_tokens=4096), tokenizer) for folder in (mild.folder, tmp_path)
    )
    texts = [f"{word} {word}" for word in ("sun", "rain?", "A book!", "stone;", "river river", "1984", "non", "Ja,")]

    def share_of_no(client: Any, calibration: str) -> list[float]:
        task = make_task(YES_OR_NO)
        bodies = [{"text": text, "calibration": calibration} for text in texts]
        results: list[Any] = [asyncio.run(task.run(client, task.request_model.model_validate(body))) for body in bodies]
        return [score.probability for result in results for score in result.scores if score.label == "no"]

    def shift(calibration: str) -> float:
        pairs = zip(share_of_no(plain, calibration), share_of_no(biased, calibration), strict=True)
        return max(abs(after - before) for before, after in pairs)

    assert min(share_of_no(biased, "none")) > 0.9
    assert shift("none") > 0.4
    assert shift("contextual") < 0.1
    assert shift("pmi_dc") < 1e-3


def test_content_free_scores_are_computed_once(mood: Task, run: Callable[..., Any], client: Any) -> None:
    first = run(mood, text="A dull film.", calibration="contextual")
    assert len(client.requests) == 3 + 3 * 3
    second = run(mood, text="A dull film.", calibration="contextual")
    assert len(client.requests) == 12 + 3
    assert [score.probability for score in second.scores] == pytest.approx(
        [score.probability for score in first.scores]
    )


@pytest.mark.parametrize("scoring", ["partial", "full"])
def test_options_inside_the_template(
    make_task: Callable[[str], Task],
    run: Callable[..., Any],
    hf: GPT2LMHeadModel,
    tokenizer: Tokenizer,
    client: Any,
    scoring: str,
) -> None:
    options = ["the trophy", "the brown suitcase"]
    before, after = "It doesn't fit because", "is too large."
    result = run(make_task(COREFERENCE), before=before, after=after, options=options, scoring=scoring, explain=True)
    expected = {}
    for option in options:
        head, tail = tokenizer.encode(f"{before} {option}"), tokenizer.encode(f" {after}")
        expected[option] = (
            truth(hf, head, tail) if scoring == "partial" else truth(hf, [client.eos_token_id], head + tail)
        )
    assert {score.label: score.logprob for score in result.scores} == pytest.approx(expected, abs=1e-4)
    assert result.explain.prompt == f"{before} {result.output} {after}"


@pytest.mark.parametrize("scoring", ["partial", "full"])
def test_an_option_may_have_more_tokens_in_its_place(
    make_task: Callable[[str], Task], run: Callable[..., Any], tokenizer: Tokenizer, scoring: str
) -> None:
    options = ["=-=-=-=-=-=-=-=-", "a b"]
    assert [len(tokenizer.encode(option)) for option in options] == [1, 2]
    assert [len(tokenizer.encode(f" {option}")) for option in options] == [5, 2]
    body = {"before": "a" + " b" * 300, "after": "is large.", "options": options, "scoring": scoring}
    result = run(make_task(COREFERENCE), **body, truncate=True, explain=True)
    assert result.explain.truncated.field == "before"
    with pytest.raises(InvalidRequest) as raised:
        run(make_task(COREFERENCE), **body)
    assert raised.value.field == "before"


def test_what_follows_an_option_can_not_be_scored_where_there_is_nothing(
    make_task: Callable[[str], Task], run: Callable[..., Any]
) -> None:
    task = make_task(COREFERENCE.replace("{option} {after}", "{after} {option}").replace("partial", "full"))
    body = {"before": "It doesn't fit", "after": "because of", "options": ["the trophy", "the suitcase"]}
    assert run(task, **body).output in body["options"]
    with pytest.raises(InvalidRequest) as raised:
        run(task, **body, scoring="partial")
    assert raised.value.field == "scoring"


def test_the_score_of_a_text(
    make_task: Callable[[str], Task], run: Callable[..., Any], hf: GPT2LMHeadModel, tokenizer: Tokenizer, client: Any
) -> None:
    text = "The cat sat on the mat. 猫"
    output = run(make_task(SCORE), text=text).output
    token_ids = tokenizer.encode(text)
    expected = truth(hf, [client.eos_token_id], token_ids)
    assert output.logprob == pytest.approx(expected, abs=1e-4)
    assert output.tokens == len(token_ids)
    assert output.perplexity == pytest.approx(math.exp(-expected / len(token_ids)), rel=1e-4)


def test_an_error_is_raised_as_it_is_once_the_other_work_has_ended() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append("work")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise InvalidRequest("wrong")

    async def run_all() -> None:
        with pytest.raises(InvalidRequest, match="wrong"):
            await together([work(), fail(), work()])
        assert ended == ["work", "work"]

    asyncio.run(run_all())


def test_a_prompt_that_ends_with_a_line_end_gets_no_space() -> None:
    assert continuation("Answer:", "yes") == " yes"
    assert continuation("Answer:\n", "yes") == "yes"
    assert continuation("", "yes") == "yes"


values = st.lists(st.floats(-9999, 0), min_size=2, max_size=6)


@given(values, st.data())
def test_probabilities_sum_to_one_whatever_the_scores(own: list[float], data: st.DataObject) -> None:
    row = st.lists(st.floats(-9999, 0), min_size=len(own), max_size=len(own))
    rows = data.draw(st.lists(row, min_size=3, max_size=3))
    for result in (probabilities(own), contextual(own, rows), pmi_dc(own, rows[0])):
        assert math.fsum(result) == pytest.approx(1)
        assert all(0 <= share <= 1 for share in result)
