"""Fixtures that every suite may use: seeded random checkpoints, saved by Hugging Face, and engines that serve them."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # read by triton when it is first imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "localhost,127.0.0.1"  # where the servers are that the tests start

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.support.triton_interpreter import replace_the_language_once_a_launch
from zeroshot.engine.engine import Engine
from zeroshot.engine.loader import load_engine as _load_engine
from zeroshot.settings import EngineSettings

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel  # where it runs, only once a model is made: its import takes seconds

TESTS = Path(__file__).parent
DEMO = TESTS.parent / "model_weights" / "demo"
GPT2_VOCAB_SIZE = 50257

torch.set_num_threads(1)  # the models here are tiny: a second thread only waits for the first
replace_the_language_once_a_launch()
settings.register_profile(
    "zeroshot",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("zeroshot")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # run in the background: what the tests start would ignore it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "training: the recipe that made model_weights/demo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's marker is the first folder under tests/ that it is in."""
    for item in items:
        parts = item.path.relative_to(TESTS).parts if item.path.is_relative_to(TESTS) else ()
        if len(parts) > 1:
            item.add_marker(parts[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files run side by side, in their order; those of a folder that share minutes of building stay together."""
    from xdist.scheduler import LoadScopeScheduling

    class FileScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            whole = ("tests/docker", "tests/cluster")
            return next((folder for folder in whole if nodeid.startswith(f"{folder}/")), nodeid.split("::", 1)[0])

    return FileScheduling(config, log)


class Checkpoint(NamedTuple):
    folder: Path
    model: "GPT2LMHeadModel"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Checkpoint]:
    """checkpoint(seed=0, **GPT2Config options) -> a folder and the Hugging Face model saved in it. Don't change either.

    Every parameter is random, biases and LayerNorms too, and large enough that the distributions are peaked: with
    Hugging Face's own initialisation all tokens are nearly equally likely, and wrong code is nearly right.
    """
    made: dict[str, Checkpoint] = {}

    def make(*, seed: int = 0, **options: Any) -> Checkpoint:
        key = repr((seed, sorted(options.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp("checkpoint")
            model = random_model(seed=seed, **options)
            model.save_pretrained(folder)
            if model.config.vocab_size == GPT2_VOCAB_SIZE:
                for name in ("vocab.json", "merges.txt"):
                    shutil.copyfile(DEMO / name, folder / name)
            made[key] = Checkpoint(folder, model)
        return made[key]

    return make


def random_model(*, seed: int, **options: Any) -> "GPT2LMHeadModel":
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 211, "n_positions": 128, "n_embd": 48, "n_layer": 2, "n_head": 3, "initializer_range": 0.35}
    options = sizes | options
    options.setdefault("eos_token_id", options["vocab_size"] - 1)
    options.setdefault("bos_token_id", options["eos_token_id"])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(GPT2Config(**options)).eval()
        for name, parameter in model.named_parameters():
            if name.endswith(".bias") or ".ln_" in name:
                parameter.data += 0.2 * torch.randn_like(parameter)
    model.generation_config.eos_token_id = options["eos_token_id"]
    model.generation_config.pad_token_id = options["eos_token_id"]
    return model


@pytest.fixture(scope="session")
def load_engine() -> Callable[..., Engine]:
    """load_engine(folder, **EngineSettings) -> an engine in this process, on the CPU in fp32 unless told otherwise."""

    def load(folder: Path, **options: Any) -> Engine:
        return _load_engine(EngineSettings(model_folder=folder, **({"device": "cpu", "dtype": "fp32"} | options)))

    return load
