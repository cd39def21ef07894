"""The rooms together: invented corpora in, a folder that transformers loads and that answers out."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from training.batches import Batches, load_rows
from training.decode import LanguageModel
from training.encoding import Prepared, tokenise_and_pack
from training.export import expand, write_folder
from training.manifest import add_to_manifest, manifest
from training.metrics import answer_accuracy, bleu_both_ways, perplexity, sentiment_accuracy
from training.mixture import Passes, build
from training.model import GPT2
from training.presets import PRESETS
from training.schedule import Schedule
from training.start import compact
from training.trainer import Trainer
from training.vocabulary import Vocabulary

PASSES = Passes(prose_passages=60, lead_summaries=20, facts=1)
PRESET = replace(
    PRESETS["cpu"], n_layer=2, n_embd=32, n_head=2, short_rows=8, warmup_steps=5, max_steps=60, max_lr=5e-3
)


@pytest.fixture(scope="module")
def prepared(corpora: Path, tokenizer: Tokenizer) -> Prepared:
    parts = build(corpora, PASSES, seed=0)
    train = [document for part in parts for document in part.train]
    held_out = [document for part in parts for document in part.held_out]
    random.Random(0).shuffle(train)
    return tokenise_and_pack(tokenizer, train, held_out)


@pytest.fixture(scope="module")
def folder(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    batches = Batches(prepared.rows["short"], prepared.rows["long"], seed=0)
    schedule = Schedule(PRESET.max_lr, PRESET.warmup_steps, PRESET.max_steps)
    trainer = Trainer.create(
        batches,
        PRESET,
        schedule,
        vocabulary=prepared.vocabulary,
        device=torch.device("cpu"),
        use_bf16=False,
        seed=0,
    )
    losses = []
    while not trainer.is_finished:
        losses.append(trainer.step())
    assert losses[-1] < 0.7 * losses[0]
    write_folder(folder, trainer.model.state_dict(), trainer.model.config, prepared.vocabulary)
    demo = Path(__file__).parents[2] / "model_weights" / "demo"
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_bytes((demo / name).read_bytes())
    return folder


def test_every_score_can_be_taken(folder: Path) -> None:
    model = LanguageModel.load(folder)
    both = bleu_both_ways(model, [("I see the dog.", "Je vois le chien."), ("I see the dog.", "Je vois un chien.")])
    assert (both["english_to_french"]["sentences"], both["english_to_french"]["references"]) == (1, 2)
    prompts = [("Review: a good film .\nSentiment:", "positive"), ("Review: a bad film .\nSentiment:", "negative")]
    assert sentiment_accuracy(model, prompts)["accuracy"] in (0.0, 0.5, 1.0)
    assert answer_accuracy(model, [("Where is it?", ["Paris", "London"])])["questions"] == 1
    report = perplexity(model, [("", "The dog came home. " * 300)], max_tokens=1000)
    assert report["tokens"] >= 1000
    assert report["perplexity"] > 1


def test_a_line_does_not_depend_on_its_batch(folder: Path) -> None:
    model = LanguageModel.load(folder)
    prompts = ["translate English to French: I see the dog. =", "Q: Where?\nA:", "Review: a good film .\nSentiment:"]
    assert model.complete_lines(prompts, max_tokens=12) == [
        line for prompt in prompts for line in model.complete_lines([prompt], max_tokens=12)
    ]


def test_only_frequent_tokens_have_rows_of_their_own(folder: Path, prepared: Prepared) -> None:
    own = LanguageModel.load(folder).has_own_row()
    assert own.nonzero().squeeze(1).tolist() == prepared.vocabulary.kept.tolist()


def test_an_exported_model_can_be_gone_on_from(folder: Path, prepared: Prepared) -> None:
    weights = compact(folder, prepared.vocabulary)
    config = PRESET.config(prepared.vocabulary.size)
    model = GPT2(config, num_shared=prepared.vocabulary.num_shared)
    model.load_state_dict(weights)
    exported = load_file(folder / "model.safetensors")
    again = expand(model.state_dict(), prepared.vocabulary)
    assert exported.keys() == again.keys()
    assert all(torch.equal(exported[name], again[name]) for name in exported)


def test_going_on_with_another_vocabulary_is_refused(folder: Path, prepared: Prepared) -> None:
    fewer = Vocabulary(prepared.vocabulary.kept[1:])
    with pytest.raises(ValueError, match="another vocabulary"):
        compact(folder, fewer)


def test_short_sentences_can_be_shown_more_often(corpora: Path) -> None:
    counts = {}
    for passes in (Passes(tatoeba=0, tatoeba_short=1), Passes(tatoeba=0, tatoeba_short=2)):
        part = build(corpora, passes, seed=0)[0]
        counts[passes.tatoeba_short] = len(part.train)
    assert counts[2] == 2 * counts[1] > 0


def test_saved_rows_are_read_back(prepared: Prepared, tmp_path: Path) -> None:
    prepared.save(tmp_path)
    for name, rows in prepared.rows.items():
        loaded = load_rows(tmp_path / f"{name}.npz")
        assert (loaded.tokens == rows.tokens).all()
        assert (loaded.weights == rows.weights).all()
    with pytest.raises(FileNotFoundError, match=r"training\.prepare"):
        load_rows(tmp_path / "nothing.npz")


def test_another_mixture_keeps_the_vocabulary(corpora: Path, tokenizer: Tokenizer, prepared: Prepared) -> None:
    parts = build(corpora, replace(PASSES, tatoeba=1), seed=1)
    train = [document for part in parts for document in part.train]
    other = tokenise_and_pack(tokenizer, train, [], prepared.vocabulary)
    assert other.vocabulary is prepared.vocabulary
    assert int(other.rows["short"].tokens.max()) <= prepared.vocabulary.shared_id


def test_the_manifest_keeps_one_entry_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    add_to_manifest(path, "main", {"seed": 0})
    add_to_manifest(path, "final", {"seed": 1})
    add_to_manifest(path, "main", {"seed": 2})
    assert json.loads(path.read_text(encoding="utf-8")) == {"main": {"seed": 2}, "final": {"seed": 1}}


def test_the_manifest_counts_every_source(corpora: Path, prepared: Prepared) -> None:
    written = manifest(build(corpora, PASSES, seed=0), PASSES, prepared, seed=0)
    sources = written["sources"]
    assert isinstance(sources, list)
    assert all(source["tokens_train"] > 0 and source["licence"] and source["credit"] for source in sources)
    assert not any("SA" in source["licence"] for source in sources), "share-alike data would bind the weights"
    assert isinstance(prepared.vocabulary, Vocabulary)
