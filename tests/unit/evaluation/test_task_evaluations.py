"""Evaluations by tasks, with a model whose answers are known: what is asked, and what is made of the answers."""

import pytest

from zeroshot.errors import InvalidRequest
from zeroshot.evaluation.corpora import Skipped


def test_exact_match_of_answers(scripted, write_jsonl, measure):
    records = [
        {"question": "who?", "answer": ["The Queen", "Freddie"]},
        {"question": "what?", "answer": ["a rose"]},
        {"question": "when?", "answer": ["1972"]},
    ]
    answers = {"who?": "queen!", "what?": "Rose", "when?": "in 1972"}
    backend = scripted(lambda name, body: answers[body["question"]] if name == "answer" else None)
    measured = measure("natural-questions", backend, write_jsonl("nq_open_dev.jsonl", records))["exact_match"]
    assert measured.value == pytest.approx(200 / 3)
    assert (measured.count, measured.total) == (3, 3)


def test_bleu_counts_every_source_once_with_all_its_references(scripted, tmp_path, measure):
    pytest.importorskip("sacrebleu", reason="sacrebleu is not installed")
    pairs = ["Run to the house now!\tCours à la maison !", "Run to the house now!\tCourez à la maison maintenant !"]
    (tmp_path / "tatoeba_eng_fra_heldout.tsv").write_text("\n".join([*pairs, "I know him well.\tJe le connais bien."]))
    known = {"Run to the house now!": "Courez à la maison maintenant !", "I know him well.": "Je le connais bien."}
    backend = scripted(lambda name, body: known.get(body["text"], "nothing"))
    measured = measure("tatoeba", backend, tmp_path)
    assert measured["en_fr_pairs"].value == pytest.approx(100)
    assert measured["en_fr_instruction"].value == pytest.approx(100)
    assert measured["fr_en_pairs"].value < 1
    assert (measured["en_fr_pairs"].total, measured["fr_en_pairs"].total) == (2, 3)
    assert "nrefs:var" in measured["en_fr_pairs"].notes[0]


def test_translation_asks_in_both_wordings_and_directions(scripted, write_jsonl, measure):
    pytest.importorskip("sacrebleu", reason="sacrebleu is not installed")
    backend = scripted(lambda name, body: "x")
    measure("wmt14", backend, write_jsonl("wmt14_test_enfr.jsonl", [{"en": "Hello.", "fr": "Salut."}]))
    asked = [(body["text"], body["style"], body.get("target"), body.get("pairs", [""])[0]) for body in backend.bodies]
    assert asked == [
        ("Hello.", "pairs", None, "Good morning. = Bonjour."),
        ("Hello.", "instruction", "French", ""),
        ("Salut.", "pairs", None, "Bonjour. = Good morning."),
        ("Salut.", "instruction", "English", ""),
    ]


def test_rouge_of_summaries_and_of_the_lead(scripted, write_jsonl, measure):
    pytest.importorskip("rouge_score", reason="rouge-score is not installed")
    records = [{"document": "A dog ran. It fell. It got up. Nobody saw it.", "summary": "It got up."}]
    backend = scripted(lambda name, body: "It got up.")
    measured = measure("xsum", backend, write_jsonl("xsum_test.jsonl", records), seed=5)
    assert measured["rouge1"].value == measured["rougeL"].value == 100
    assert backend.bodies[0]["seed"] == 5
    # 8 words, 3 of them right: precision 3/8, recall 1
    assert "first 3 sentences: 54.55" in measured["rouge1"].notes[-1]


def test_sentiment_with_each_calibration(scripted, write_jsonl, measure):
    records = [{"text": "good", "label": 1}, {"text": "bad", "label": 0}, {"text": "fine", "label": 1}]
    backend = scripted(lambda name, body: "positive" if body["calibration"] == "none" else "negative")
    measured = measure("sst2", backend, write_jsonl("sst2_test.jsonl", records))
    assert measured["none"].value == pytest.approx(200 / 3)
    assert measured["contextual"].value == measured["pmi_dc"].value == pytest.approx(100 / 3)
    assert "66.7 %" in measured["none"].notes[0]


def test_reading_puts_the_story_before_the_question(scripted, write_jsonl, measure):
    questions = [
        {"question": "Who?", "choices": ["Ann", "Bob "], "answer": "Bob "},
        {"question": "Same?", "choices": ["Ann", "Ann"], "answer": "Ann"},
    ]
    backend = scripted(lambda name, body: body["options"][1])
    measured = measure(
        "mctest", backend, write_jsonl("mctest_test.jsonl", [{"story": "A story. ", "questions": questions}])
    )
    assert measured["pmi_dc"].value == 100
    assert measured["none"].total == 1, "a question with the same choice twice is none"
    assert backend.bodies[0]["question"] == "A story.\n\nWho?"


def test_a_limit_draws_a_sample(scripted, write_jsonl, measure):
    folder = write_jsonl("nq_open_dev.jsonl", [{"question": str(n), "answer": ["x"]} for n in range(50)])
    backend = scripted(lambda name, body: "x")
    measured = measure("natural-questions", backend, folder, limit=7, seed=1)["exact_match"]
    assert (measured.count, measured.total, len(backend.bodies)) == (7, 50, 7)


def test_scores_are_not_to_be_had_over_http(scripted, write_jsonl, measure):
    folder = write_jsonl("lambada_test.jsonl", [{"text": "a b"}])
    with pytest.raises(Skipped, match="in process"):
        measure("lambada", scripted(lambda name, body: None), folder)


def test_a_line_without_a_tab_is_named(scripted, tmp_path, measure):
    (tmp_path / "tatoeba_eng_fra_heldout.tsv").write_text("Hi.\tSalut.\nHi.\n")
    with pytest.raises(InvalidRequest, match="tsv:2"):
        measure("tatoeba", scripted(lambda name, body: ""), tmp_path)
