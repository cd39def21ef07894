"""The training model against Hugging Face's, and the export in between."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import GPT2LMHeadModel

from training.export import expand, half_way, write_folder
from training.model import GPT2, INIT_STD, residual_std
from training.vocabulary import END_OF_TEXT_ID, GPT2_VOCAB_SIZE, Vocabulary
from zeroshot.model.config import GPT2Config

KEPT = np.sort(np.random.default_rng(0).choice(END_OF_TEXT_ID, size=200, replace=False))
VOCABULARY = Vocabulary(np.append(KEPT, END_OF_TEXT_ID))
CONFIG = GPT2Config(vocab_size=VOCABULARY.size, n_positions=64, n_embd=32, n_layer=3, n_head=2, n_inner=128)


@pytest.fixture(scope="module")
def model() -> GPT2:
    """Random in every parameter, with weights that fp16 holds exactly: export must then change nothing."""
    torch.manual_seed(0)
    model = GPT2(CONFIG, num_shared=VOCABULARY.num_shared)
    for parameter in model.parameters():
        parameter.data = (parameter.data + 0.2 * torch.randn_like(parameter)).half().float()
    return model.eval()


@pytest.fixture(scope="module")
def exported(model: GPT2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    write_folder(folder, model.state_dict(), CONFIG, VOCABULARY)
    return folder


@pytest.fixture(scope="module")
def reference(exported: Path) -> GPT2LMHeadModel:
    return GPT2LMHeadModel.from_pretrained(exported, dtype=torch.float32).eval()


@torch.no_grad()
def test_the_exported_folder_gives_the_same_logits_in_transformers(model: GPT2, reference: GPT2LMHeadModel) -> None:
    tokens = torch.randint(GPT2_VOCAB_SIZE, (3, 64), generator=torch.Generator().manual_seed(1))
    compact = torch.from_numpy(VOCABULARY.to_compact().astype(np.int64))
    ours = model.logits(model.hidden(compact[tokens]))
    torch.testing.assert_close(ours[..., compact], reference(tokens).logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_training_loss_is_the_loss_of_the_exported_model(model: GPT2, reference: GPT2LMHeadModel) -> None:
    """The shared row counts as often in the softmax as the export will copy it."""
    compact = torch.randint(len(VOCABULARY.kept), (2, 20), generator=torch.Generator().manual_seed(2))
    tokens = torch.from_numpy(VOCABULARY.kept)[compact]
    ours = model.loss_sum(compact, torch.ones(2, 20)) / 38
    torch.testing.assert_close(ours, reference(tokens, labels=tokens).loss, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_only_weighted_targets_count(model: GPT2) -> None:
    tokens = torch.randint(200, (2, 20), generator=torch.Generator().manual_seed(3))
    one, other, both = torch.zeros(2, 20), torch.zeros(2, 20), torch.zeros(2, 20)
    one[0, 5] = both[0, 5] = 1
    other[1, 19] = 1
    both[1, 19] = 5
    torch.testing.assert_close(
        model.loss_sum(tokens, one) + 5 * model.loss_sum(tokens, other), model.loss_sum(tokens, both)
    )


@torch.no_grad()
def test_the_first_position_shifts_the_row(model: GPT2) -> None:
    tokens = torch.randint(200, (2, 10), generator=torch.Generator().manual_seed(4))
    shifted = model.hidden(tokens, torch.tensor([[0], [30]]))
    torch.testing.assert_close(shifted[:1], model.hidden(tokens[:1]))
    torch.testing.assert_close(shifted[1:], model.hidden(tokens[1:], 30))


def test_the_folder_holds_fp16_and_no_second_copy_of_the_embedding(exported: Path) -> None:
    with safe_open(exported / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
        assert all(file.get_tensor(name).dtype == torch.float16 for name in names)
        assert file.get_slice("transformer.wte.weight").get_shape() == [GPT2_VOCAB_SIZE, CONFIG.n_embd]
    assert "lm_head.weight" not in names
    assert all(name.startswith("transformer.") for name in names)
    config = json.loads((exported / "config.json").read_text(encoding="utf-8"))
    assert (config["vocab_size"], config["eos_token_id"]) == (GPT2_VOCAB_SIZE, END_OF_TEXT_ID)
    assert GPT2Config.from_folder(exported).n_layer == CONFIG.n_layer


def test_all_rare_tokens_share_one_row(model: GPT2) -> None:
    wte = expand(model.state_dict(), VOCABULARY)["transformer.wte.weight"]
    rare = np.setdiff1d(np.arange(GPT2_VOCAB_SIZE), VOCABULARY.kept)
    assert torch.equal(wte[rare], wte[rare[:1]].expand(len(rare), -1))


def test_residual_projections_start_smaller() -> None:
    torch.manual_seed(0)
    fresh = GPT2(GPT2Config(vocab_size=50, n_embd=256, n_layer=6, n_head=4, n_inner=1024))
    assert residual_std(6) == INIT_STD / math.sqrt(12)
    for block in fresh.h:
        assert float(block.attn.c_proj.weight.detach().std()) == pytest.approx(residual_std(6), rel=0.05)
        assert float(block.mlp.c_proj.weight.detach().std()) == pytest.approx(residual_std(6), rel=0.05)
        assert float(block.mlp.c_fc.weight.detach().std()) == pytest.approx(INIT_STD, rel=0.05)


def test_weights_half_way_between_two_runs() -> None:
    one = {"a": torch.tensor([1.0, -2.0]), "b": torch.zeros(3)}
    other = {"a": torch.tensor([3.0, 4.0]), "b": torch.ones(3)}
    halves = half_way(one, other)
    assert {name: weight.tolist() for name, weight in halves.items()} == {"a": [2.0, 1.0], "b": [0.5, 0.5, 0.5]}
    assert one["a"].tolist() == [1.0, -2.0]
