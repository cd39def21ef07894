"""Demonstrations are in the wording of `prompts/*.yaml`: a prompt that drifts from its training data fails here."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers import Tokenizer

from training import demonstrations as show
from training.demonstrations import Document
from training.encoding import encode
from training.facts import QuestionAnswer
from training.vocabulary import END_OF_TEXT_ID

PROMPTS = Path(__file__).parents[2] / "prompts"
QUESTIONS = [QuestionAnswer(f"What is {number}?", f"number {number}") for number in range(40)]


def prompt_file(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((PROMPTS / f"{name}.yaml").read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("translate", show.TRANSLATE),
        ("sentiment", show.SENTIMENT),
        ("summarize", show.SUMMARIZE),
        ("answer", show.ANSWER),
    ],
)
def test_templates_are_those_of_the_prompt_files(name: str, template: str) -> None:
    assert template == prompt_file(name)["template"]


def test_the_examples_of_answer_are_those_of_the_prompt_file() -> None:
    examples = [show.ANSWER.format(question=question) + f" {answer}" for question, answer in show.ANSWER_EXAMPLES]
    assert examples == list(prompt_file("answer")["examples"])


def test_labels_are_those_of_the_prompt_file() -> None:
    assert set(show.LABELS.values()) == set(prompt_file("sentiment")["output"]["labels"])


def test_the_answer_ends_where_serving_stops() -> None:
    for name in ("translate", "answer"):
        assert prompt_file(name)["decoding"]["stop"] == ["\n"]
    assert show.demonstration("tatoeba", "a =", "b").text == "a = b\n"


def test_most_translations_are_in_exactly_the_served_wording() -> None:
    pairs = [(f"I see {number}.", f"Je vois {number}.") for number in range(500)]
    documents = list(show.translations(pairs, random.Random(0)))
    template = prompt_file("translate")["template"]
    starts = [template.format(source=a, target=b, text="").removesuffix(" =") for a, b in
              (("English", "French"), ("French", "English"))]  # fmt: skip
    for start in starts:
        share = sum(document.text.startswith(start) for document in documents) / len(documents)
        assert 0.35 < share < 0.5


def test_only_answers_are_learned() -> None:
    document = next(show.translations([("Hello.", "Bonjour.")] * 4, random.Random(3)))
    assert [piece.weight for piece in document.pieces] == [show.READ, show.LEARN]
    assert document.pieces[1].text.endswith("\n")


def test_every_answer_is_learned_with_the_line_end_that_stops_it() -> None:
    for document in show.answers(QUESTIONS, random.Random(0), source="facts"):
        learned = "".join(piece.text if piece.weight else "|" for piece in document.pieces)
        assert learned.endswith("\n")
        assert "number" in learned
        assert "Q:" not in learned
        for index, piece in enumerate(document.pieces):
            if piece.text.startswith(" number"):
                assert document.pieces[index + 1].text.startswith("\n")
                assert document.pieces[index + 1].weight == show.LEARN


def documents() -> list[Document]:
    rng = random.Random(1)
    pairs = [("Where are you?", "Où es-tu ?"), ("I'm here.", "Je suis là."), ("No.", "Non."), ("Yes!", "Oui !")]
    passage = "The old boat lay in the harbour for years. Nobody knew why it was there. One day it was gone."
    lead = show.lead_summary(passage, rng, source="books")
    assert lead is not None
    return [
        *show.translations(pairs * 10, rng),
        *show.answers(QUESTIONS, rng, source="facts"),
        *(
            show.sentiment("a warm , funny film .", 1, rng, source="r", learn_text=learn)
            for learn in (True, False) * 10
        ),
        show.summary("A long text.", "Short.", rng, source="scitldr"),
        show.prose("books", passage),
        lead,
    ]


def test_pieces_encode_to_the_tokens_of_the_whole_text(tokenizer: Tokenizer) -> None:
    for document, (tokens, weights) in zip(documents(), encode(tokenizer, documents()), strict=True):
        # The one exception is on purpose: a blank line that is learned is one token.
        lines = [piece.text for piece in document.pieces if piece != ("\n\n", show.LEARN)]
        if len(lines) < len(document.pieces):
            continue
        whole = tokenizer.encode(document.text, add_special_tokens=False).ids
        assert tokens.tolist() == [*whole, END_OF_TEXT_ID]
        assert len(weights) == len(tokens)


def test_end_of_text_in_a_corpus_is_plain_text(tokenizer: Tokenizer) -> None:
    [(tokens, _)] = encode(tokenizer, [show.prose("books", "before <|endoftext|> after")])
    assert tokens.tolist().count(END_OF_TEXT_ID) == 1
    assert tokens[-1] == END_OF_TEXT_ID


@pytest.mark.parametrize(
    ("short", "whole"),
    [
        ("I'm hungry.", "I am hungry."),
        ("They're late, and we can't wait.", "They are late, and we cannot wait."),
        ("He's tired. He's been ill.", "He is tired. He's been ill."),
        ("It's the dog's bone.", "It is the dog's bone."),
        ("I didn't know you've left, and won't ask.", "I did not know you have left, and will not ask."),
    ],
)
def test_contractions_are_spelled_out(short: str, whole: str) -> None:
    assert show.spelled_out(short) == whole


def test_a_share_of_the_translations_is_spelled_out() -> None:
    pairs = [("I'm here.", "Je suis ici.")] * 200
    whole = list(show.translations(pairs, random.Random(0), share_spelled_out=1.0))
    contracted = sum("I'm" in document.text for document in whole)
    assert contracted < 0.1 * len(whole)  # lists of pairs, and what is put behind a sentence, stay as they are
    none = list(show.translations(pairs, random.Random(0)))
    assert not any("I am" in document.text for document in none)
