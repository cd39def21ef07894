"""The folder of prompt files as tasks, and its changes while serving.

A reload checks every changed file first and then swaps all tasks in one assignment. A file with a mistake keeps its
last good version serving; the mistake stands in `errors` until the file is right or gone.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from watchfiles import awatch

from zeroshot.errors import PromptFileError, UnknownTask
from zeroshot.tasks import checks
from zeroshot.tasks.task import Task
from zeroshot.tasks.yaml_source import YamlPath
from zeroshot.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_SUFFIXES = (".yaml", ".yml")
_DEBOUNCE_MS = 600
_STEP_MS = 200  # how often the watching thread wakes up: five times a second costs nothing
_LOOK_AGAIN_MS = 500  # how often to see whether the folder is still the one that is watched
_WATCH_AGAIN_S = 10.0


@dataclass(frozen=True, slots=True)
class FileError:
    """A file that is not served as it stands."""

    file: str
    message: str
    serving: str | None
    """The task that still serves its last good version."""


@dataclass(frozen=True, slots=True)
class _State:
    """Everything a request can see of the catalog: replaced as a whole, never changed."""

    generation: int = 0
    tasks: Mapping[str, Task] = field(default_factory=dict)
    """By name, in order."""
    files: Mapping[str, Task] = field(default_factory=dict)
    """The task that each file serves."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """What each file held when it was last read, good or not."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Why a file could not be read at all."""
    errors: Mapping[str, FileError] = field(default_factory=dict)


class Catalog:
    """Raises PromptFileError for any mistake when made; none later."""

    def __init__(self, folder: Path, *, tokenizer: Tokenizer, max_model_len: int) -> None:
        self.folder = folder
        self._tokenizer = tokenizer
        self._max_model_len = max_model_len
        self._state = _State()
        if not folder.is_dir():
            raise PromptFileError(f"{folder} is not a folder; --prompts names the one with the prompt files")
        self.reload()
        for error in self.errors:
            raise PromptFileError(f"{folder}/{error.message}")

    @property
    def tasks(self) -> list[Task]:
        return list(self._state.tasks.values())

    @property
    def errors(self) -> list[FileError]:
        return list(self._state.errors.values())

    @property
    def generation(self) -> int:
        """Grows with each change: what was derived from the tasks is stale when this differs."""
        return self._state.generation

    def get(self, name: str) -> Task:
        """Raises UnknownTask."""
        task = self._state.tasks.get(name)
        if task is None:
            known = ", ".join(self._state.tasks) or "none"
            raise UnknownTask(f"There is no task {name[:64]!r}. Tasks here: {known}.")
        return task

    def reload(self) -> bool:
        """Look at every file, take over what changed. True if something did. Raises OSError if the folder is gone."""
        old = self._state
        contents, unreadable = self._read()
        versions = {file: checks.version_of(content) for file, content in contents.items()}
        if versions == old.versions and unreadable == old.unreadable:
            return False
        files: dict[str, Task] = {}
        errors = dict(unreadable)
        # Unchanged files first: a new file can't take a name from one that has it.
        served = {file: task.version for file, task in old.files.items()}
        for file in sorted(versions, key=lambda file: (versions[file] != served.get(file), file)):
            try:
                files[file] = self._take_over(file, contents[file], versions[file], files)
            except PromptFileError as error:
                errors[file] = error.message
        for file in sorted(errors):
            if file in old.files and old.files[file].name not in {task.name for task in files.values()}:
                files[file] = old.files[file]
        self._state = _State(
            generation=old.generation + 1,
            tasks={task.name: task for task in sorted(files.values(), key=lambda task: task.name)},
            files=files,
            versions=versions,
            unreadable=unreadable,
            errors={
                file: FileError(file, message, files[file].name if file in files else None)
                for file, message in sorted(errors.items())
            },
        )
        return True

    async def watch(self) -> None:
        """Reload after each change in the folder, until cancelled. A folder that was replaced is watched anew."""
        while True:
            identity = self._folder_identity()
            if identity is None:
                await asyncio.sleep(_LOOK_AGAIN_MS / 1000)
                continue
            try:
                await self._watch(identity)
            except Exception:  # gone since it was looked at, or the system watches all it can: it may yet be possible
                logger.exception("%s can't be watched; trying again in %g s", self.folder, _WATCH_AGAIN_S)
                await asyncio.sleep(_WATCH_AGAIN_S)

    async def _watch(self, identity: tuple[int, int]) -> None:
        """Until the folder is another one, or none."""
        changes = awatch(
            self.folder,
            recursive=False,
            debounce=_DEBOUNCE_MS,
            step=_STEP_MS,
            rust_timeout=_LOOK_AGAIN_MS,
            yield_on_timeout=True,
        )
        is_first = True  # no event reports what changed before the watch was in place
        async with aclosing(changes):
            async for changed in changes:
                if self._folder_identity() != identity:
                    return
                if changed or is_first:
                    await self._reload_while_serving()
                is_first = False

    def _folder_identity(self) -> tuple[int, int] | None:
        try:
            found = self.folder.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    async def _reload_while_serving(self) -> None:
        try:
            # In a thread: building models for many files takes longer than a request should wait.
            is_changed = await asyncio.to_thread(self.reload)
        except Exception:  # whatever it was: the tasks go on as they are, and so does the watching
            logger.exception("%s could not be reloaded", self.folder)
            return
        if is_changed:
            logger.info("%s: %d tasks; files with mistakes: %d", self.folder, len(self.tasks), len(self.errors))
            for error in self.errors:
                logger.warning("%s", error.message)

    def prefixes(self) -> list[list[int]]:
        """Token ids of what each task's prompts begin with: few-shot examples and text before the first input."""
        texts = dict.fromkeys(prefix for task in self.tasks for prefix in task.prefixes() if prefix)
        return [self._tokenizer.encode(text) for text in texts]

    def _read(self) -> tuple[dict[str, bytes], dict[str, str]]:
        """Contents, and messages for the files that can't be read, by file name."""
        contents: dict[str, bytes] = {}
        errors: dict[str, str] = {}
        root = self.folder.resolve()
        for path in sorted(self.folder.iterdir()):
            if path.suffix not in _SUFFIXES or path.name.startswith(".") or path.is_dir():
                continue
            file = checks.shown_name(path)
            try:
                if not path.resolve().is_relative_to(root):
                    raise PromptFileError(f"{file}: a link to a file outside of the folder is not followed")
                contents[file] = checks.read(path)
            except PromptFileError as error:
                errors[file] = error.message
            except RuntimeError:  # how `resolve` says it before Python 3.13
                errors[file] = f"{file}: a link that leads back to itself"
        return contents, errors

    def _take_over(self, file: str, content: bytes, version: str, files: Mapping[str, Task]) -> Task:
        task = self._state.files.get(file)
        if task is None or task.version != version:
            task = self._load(file, content, version)
        for other_file, other in files.items():
            if other.name == task.name:
                raise PromptFileError(f"{file}:1: name: {task.name!r} is the name of the task in {other_file} already")
        return task

    def _load(self, file: str, content: bytes, version: str) -> Task:
        loaded, source = checks.parse(file, content)
        task = Task(loaded, version)
        too_long = task.check_fits(self._tokenizer, self._max_model_len)
        if too_long is not None:
            style, num_fixed, num_reserved = too_long
            place: YamlPath = ("styles", style, "template") if style in loaded.styles else ("template",)
            if num_fixed < num_reserved:
                place = ("decoding", "max_tokens")
            raise source.mistake(
                place,
                f"{num_fixed} tokens of fixed text and {num_reserved} for the answer leave no room for inputs: the "
                f"model's context holds {self._max_model_len}",
            )
        num_premise = task.premise_tokens(self._tokenizer)
        if num_premise > self._max_model_len:
            raise source.mistake(
                ("output", "premise"),
                f"{num_premise} tokens with a label after it: the model's context holds {self._max_model_len}",
            )
        return task
