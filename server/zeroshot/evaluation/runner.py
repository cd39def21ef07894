"""Select evaluations, run them one after the other, collect a report. Called by the `zeroshot eval` command."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zeroshot
from zeroshot.errors import InvalidRequest, ZeroshotError
from zeroshot.evaluation.backend import in_process
from zeroshot.evaluation.corpora import DataFolder, Skipped
from zeroshot.evaluation.datasets import ALL
from zeroshot.evaluation.protocol import Backend, Evaluation, Run
from zeroshot.evaluation.remote import over_http
from zeroshot.evaluation.report import Outcome, Report, Status, row
from zeroshot.settings import Settings

OnProgress = Callable[[str, int, int], None]
"""on_progress(evaluation's name, examples done, examples in all)"""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked for. `names` empty: everything there is."""

    data: Path
    names: Sequence[str] = ()
    limit: int | None = None
    seed: int = 0
    stride: int | None = None


def check(options: Options) -> list[Evaluation]:
    """What the options ask for, in the registry's order. Raises InvalidRequest if they can't be right.

    To call before a model is looked for or loaded.
    """
    known = {evaluation.name: evaluation for evaluation in ALL}
    unknown = [name for name in options.names if name not in known]
    if unknown:
        raise InvalidRequest(f"There is no evaluation {unknown[0]!r}. There are: {', '.join(known)}.")
    if not options.data.is_dir():
        raise InvalidRequest(f"{options.data} is not a folder; --data names the one with the files to evaluate on.")
    for name, value in (("limit", options.limit), ("stride", options.stride)):
        if value is not None and value < 1:
            raise InvalidRequest(f"{name} must be at least 1, not {value}.")
    return [evaluation for evaluation in ALL if not options.names or evaluation.name in options.names]


async def evaluate_in_process(
    settings: Settings, model_folder: Path, options: Options, on_progress: OnProgress
) -> Report:
    """Starts an engine with the settings' device, dtype and threads, and stops it afterwards."""
    return await _evaluate(
        in_process(settings, model_folder), options, on_progress, tasks_shown_in_training(model_folder)
    )


async def evaluate_over_http(url: str, options: Options, on_progress: OnProgress) -> Report:
    """What a running server can be asked for; evaluations that need scores of given tokens are skipped."""
    return await _evaluate(over_http(url), options, on_progress, None)


async def _evaluate(
    opened: AbstractAsyncContextManager[Backend],
    options: Options,
    on_progress: OnProgress,
    tasks_shown: frozenset[str] | None,
) -> Report:
    """Raises InvalidRequest before anything is started, if the options can't be right."""
    evaluations = check(options)
    async with opened as backend:
        outcomes = [await _outcome(item, backend, options, on_progress, tasks_shown) for item in evaluations]
        return Report(
            version=zeroshot.__version__,
            model=backend.model,
            mode=backend.mode,
            limit=options.limit,
            seed=options.seed,
            stride=options.stride,
            outcomes=outcomes,
        )


async def _outcome(
    evaluation: Evaluation,
    backend: Backend,
    options: Options,
    on_progress: OnProgress,
    tasks_shown: frozenset[str] | None,
) -> Outcome:
    """One evaluation's failure is a line of the report: hours of other results must not be lost with it."""
    data = DataFolder(options.data)
    run = Run(backend, data, options.limit, options.seed, options.stride)
    run = replace(run, on_progress=lambda done, total: on_progress(evaluation.name, done, total))
    status: Status = "measured"
    reason, rows, start = "", [], time.monotonic()
    try:
        rows = [row(evaluation, measurement) for measurement in await evaluation.run(run)]
    except Skipped as error:
        status, reason = "skipped", error.message
    except ZeroshotError as error:
        status, reason = "failed", error.message
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        expected = " ".join(file.description for file in evaluation.files)
        status, reason = "failed", f"the data have another form than expected ({error!r}). {expected}"
    return Outcome(
        name=evaluation.name,
        title=evaluation.title,
        section=evaluation.section,
        protocol=evaluation.protocol,
        status=status,
        reason=reason,
        is_shown_in_training=None if tasks_shown is None else evaluation.shows in tasks_shown,
        files=data.checksums,
        duration_s=round(time.monotonic() - start, 1),
        rows=rows,
    )


def tasks_shown_in_training(model_folder: Path) -> frozenset[str] | None:
    """Tasks that a model's manifest.json says were shown in training; None for a model without one."""
    try:
        manifest = json.loads((model_folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    shown = list(_shown(manifest))
    return frozenset(task.strip() for tasks in shown for task in tasks.split(",")) if shown else None


def _shown(value: Any) -> Iterator[str]:
    """Every `shows` in it, however the manifest groups its sources."""
    if isinstance(value, dict):
        yield from (text for name, text in value.items() if name == "shows" and isinstance(text, str))
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _shown(item)
