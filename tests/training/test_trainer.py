"""The loop: learning, the order of the data, and a resumed run that is the same run, bit for bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.batches import Batches, first_positions, row_numbers
from training.packing import Rows
from training.presets import PRESETS, Preset
from training.schedule import Schedule
from training.trainer import Trainer
from training.vocabulary import END_OF_TEXT_ID, Vocabulary

TINY = replace(
    PRESETS["cpu"], n_layer=2, n_embd=32, n_head=2, short_rows=4, long_rows=1, micro_batch_tokens=256, warmup_steps=2
)
VOCABULARY = Vocabulary(np.append(np.arange(60), END_OF_TEXT_ID))


def rows(num_rows: int, length: int) -> Rows:
    """Counting upwards: easy to learn."""
    tokens = (np.arange(num_rows)[:, None] + np.arange(length)) % 60
    weights = np.random.default_rng(0).integers(0, 3, size=tokens.shape)
    return Rows(tokens.astype(np.uint16), weights.astype(np.uint8))


def trainer(preset: Preset = TINY, *, seed: int = 0) -> Trainer:
    return Trainer.create(
        Batches(rows(50, 128), rows(7, 1024), seed),
        preset,
        Schedule(3e-3, preset.warmup_steps, 40),
        vocabulary=VOCABULARY,
        device=torch.device("cpu"),
        use_bf16=False,
        seed=seed,
    )


def weights_of(trained: Trainer) -> list[torch.Tensor]:
    return list(trained.model.state_dict().values())


def test_it_learns() -> None:
    trained = trainer()
    losses = [trained.step() for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]
    assert trained.is_finished
    assert trained.held_out_loss(rows(5, 128)) < losses[0]


def test_a_resumed_run_takes_bitwise_the_same_steps(tmp_path: Path) -> None:
    uninterrupted = trainer()
    losses = [uninterrupted.step() for _ in range(12)]
    first = trainer()
    for _ in range(5):
        first.step()
    first.save(tmp_path / "checkpoint.pt")
    resumed = trainer(seed=0)
    resumed.resume(tmp_path / "checkpoint.pt")
    assert resumed.progress.step == 5
    assert [resumed.step() for _ in range(7)] == losses[5:]
    assert all(map(torch.equal, weights_of(resumed), weights_of(uninterrupted)))


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    trainer().save(tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="other settings"):
        trainer(seed=1).resume(tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="other settings"):
        trainer(replace(TINY, n_layer=3)).resume(tmp_path / "checkpoint.pt")


def test_saving_leaves_no_half_written_file(tmp_path: Path) -> None:
    trainer().save(tmp_path / "run" / "checkpoint.pt")
    trainer().save(tmp_path / "run" / "checkpoint.pt")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint.pt"]


def test_micro_batches_change_nothing() -> None:
    whole, parts = trainer(replace(TINY, micro_batch_tokens=4096)), trainer(replace(TINY, micro_batch_tokens=128))
    for _ in range(3):
        assert whole.step() == pytest.approx(parts.step(), rel=1e-4)


def test_every_row_comes_once_before_any_comes_again() -> None:
    numbers = np.concatenate([row_numbers(50, 4, step, seed=0) for step in range(25)])
    assert sorted(numbers[:50].tolist()) == sorted(numbers[50:].tolist()) == list(range(50))
    assert numbers[:50].tolist() != numbers[50:].tolist()


def test_the_order_is_a_function_of_seed_and_step() -> None:
    assert row_numbers(50, 4, 17, seed=0).tolist() == row_numbers(50, 4, 17, seed=0).tolist()
    assert row_numbers(50, 4, 17, seed=0).tolist() != row_numbers(50, 4, 17, seed=1).tolist()


def test_most_rows_start_at_position_0_and_none_runs_over_the_end() -> None:
    starts = torch.cat([first_positions(28, 128, step, seed=0) for step in range(100)])
    assert 0.7 < float((starts == 0).float().mean()) < 0.8
    assert int(starts.max()) <= 1024 - 128
    assert not first_positions(8, 1024, 0, seed=0).any()
