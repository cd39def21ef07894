"""The vocabulary of this room: an `Evaluation` declares `Metric`s and a `run` function that returns `Measurement`s."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from zeroshot.evaluation.corpora import DataFile, DataFolder, Skipped
from zeroshot.text.tokenizer import Tokenizer
from zeroshot.types import TokenLogprob

SIZES = ("117M", "345M", "762M", "1542M")
"""The models of the paper, in its order and with its names: gpt2, gpt2-medium, gpt2-large and gpt2-xl on the hub."""

PaperNumbers = tuple[float | None, float | None, float | None, float | None]
"""By `SIZES`; None where the paper gives no number."""

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One number, and everything that must be said to know what it is."""

    key: str
    """Unique within the evaluation; stable, for whoever reads the JSON."""
    name: str
    protocol: str
    better: Better = "higher"
    paper: PaperNumbers | None = None
    differs: str = ""
    """Why a measured number is not the paper's even on its models: other data, an unpublished detail."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """The value of `metric`, over `count` of the `total` examples there are."""

    key: str
    value: float
    count: int
    total: int
    stderr: float | None = None
    notes: tuple[str, ...] = ()


class Scorer(Protocol):
    """Exact log-probabilities of given tokens, from an engine in this process."""

    tokenizer: Tokenizer
    max_model_len: int
    eos_token_id: int

    async def score(self, token_ids: Sequence[int], start: int, *, top: int = 0) -> list[TokenLogprob]:
        """Scores of `token_ids[start:]`, each given all tokens before it. Raises what the client raises."""
        ...


class Backend(Protocol):
    """Where the model runs."""

    model: str
    mode: str
    scorer: Scorer | None
    max_in_flight: int

    async def task(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """The result of `POST /tasks/<name>`. Raises ZeroshotError."""
        ...


def _unseen(done: int, total: int) -> None:
    """Progress that nobody looks at."""


@dataclass(frozen=True, slots=True)
class Run:
    """What an evaluation gets: the model, the data, and the options of this run."""

    backend: Backend
    data: DataFolder
    limit: int | None = None
    seed: int = 0
    stride: int | None = None
    on_progress: Callable[[int, int], None] = _unseen
    """on_progress(examples done, examples in all)"""

    @property
    def scorer(self) -> Scorer:
        """Raises Skipped for a model behind HTTP."""
        if self.backend.scorer is None:
            raise Skipped(
                "needs log-probabilities of the prompt's tokens, and --url uses the task endpoints only: "
                "run it in process, with --model instead of --url"
            )
        return self.backend.scorer


@dataclass(frozen=True, slots=True)
class Evaluation:
    name: str
    title: str
    section: str
    """Where in Radford et al. 2019; empty for what is not in the paper."""
    files: tuple[DataFile, ...]
    protocol: str
    metrics: tuple[Metric, ...]
    run: Callable[[Run], Awaitable[list[Measurement]]]
    needs_scores: bool = False
    shows: str = ""
    """The task's name in the `shows` lists of a model's manifest.json: was it shown in training?"""

    def metric(self, key: str) -> Metric:
        """Raises KeyError."""
        return {metric.key: metric for metric in self.metrics}[key]
