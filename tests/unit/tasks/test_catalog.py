"""Prompt files come, change, break and go while the tasks are served."""

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zeroshot.errors import Overloaded, PromptFileError, UnknownTask
from zeroshot.tasks import catalog as catalog_module
from zeroshot.tasks.catalog import Catalog
from zeroshot.tasks.prewarm import keep_warm, prewarm
from zeroshot.text.tokenizer import Tokenizer

FILE = """\
name: {name}
summary: {summary}
inputs: {{text: {{type: string}}}}
template: "{template}"
output: {{kind: text}}
"""
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(file: str, *, name: str = "one", summary: str = "A task.", template: str = "Say {text}:") -> Path:
        path = tmp_path / file
        path.write_text(FILE.format(name=name, summary=summary, template=template))
        return path

    return write_file


@pytest.fixture
def catalog(tmp_path: Path, write: Write, tokenizer: Tokenizer) -> Catalog:
    write("one.yaml")
    return Catalog(tmp_path, tokenizer=tokenizer, max_model_len=256)


def test_a_mistake_at_start_is_an_error(tmp_path: Path, write: Write, tokenizer: Tokenizer) -> None:
    write("bad.yaml", template="Say {txt}:")
    with pytest.raises(PromptFileError, match=r"bad\.yaml:4: template: \{txt\} is not among the inputs"):
        Catalog(tmp_path, tokenizer=tokenizer, max_model_len=256)
    with pytest.raises(PromptFileError, match="is not a folder"):
        Catalog(tmp_path / "nowhere", tokenizer=tokenizer, max_model_len=256)


def test_two_files_with_one_name(tmp_path: Path, write: Write, tokenizer: Tokenizer) -> None:
    write("a.yaml")
    write("b.yaml")
    with pytest.raises(PromptFileError, match=r"b\.yaml:1: name: 'one' is the name of the task in a\.yaml already"):
        Catalog(tmp_path, tokenizer=tokenizer, max_model_len=256)


def test_a_template_longer_than_the_context(tmp_path: Path, write: Write, tokenizer: Tokenizer) -> None:
    write("long.yaml", template="word " * 200 + "{text}")
    with pytest.raises(PromptFileError, match=r"long\.yaml:4: template: 2\d\d tokens of fixed text .* holds 256"):
        Catalog(tmp_path, tokenizer=tokenizer, max_model_len=256)


def test_an_answer_longer_than_the_context(tmp_path: Path, write: Write, tokenizer: Tokenizer) -> None:
    path = write("long.yaml")
    path.write_text(path.read_text() + "decoding:\n  max_tokens: 5000\n")
    words = r"long\.yaml:7: decoding\.max_tokens: \d tokens of fixed text and 5000 for the answer .* holds 256"
    with pytest.raises(PromptFileError, match=words):
        Catalog(tmp_path, tokenizer=tokenizer, max_model_len=256)


@pytest.mark.parametrize(("labels", "longest"), [("[good, very very bad]", 3), ("labels", 1)])
def test_a_premise_longer_than_the_context(
    tmp_path: Path, write: Write, tokenizer: Tokenizer, labels: str, longest: int
) -> None:
    path = write("long.yaml", template="Say {text}, {labels}:")
    head = path.read_text().replace("{type: string}", "{type: string}, labels: {type: list}").split("output")[0]
    text = f"{head}output:\n  kind: label\n  labels: {labels}\n  premise: word"
    path.write_text(text + " word" * (256 - longest))
    with pytest.raises(PromptFileError, match=r"long\.yaml:8: output\.premise: 257 tokens .* holds 256"):
        Catalog(tmp_path, tokenizer=tokenizer, max_model_len=256)
    path.write_text(text + " word" * (255 - longest))
    Catalog(tmp_path, tokenizer=tokenizer, max_model_len=256)


def test_nothing_changed_is_nothing_done(catalog: Catalog) -> None:
    task, generation = catalog.get("one"), catalog.generation
    assert catalog.reload() is False
    assert catalog.get("one") is task
    assert catalog.generation == generation


def test_edit_add_delete(catalog: Catalog, write: Write) -> None:
    before = catalog.get("one")
    write("one.yaml", summary="Another.")
    write("two.yml", name="two")
    assert catalog.reload() is True
    assert catalog.get("one").file.summary == "Another."
    assert catalog.get("one").version != before.version
    assert before.file.summary == "A task."  # a request that runs keeps what it started with
    two = catalog.get("two")
    (catalog.folder / "one.yaml").unlink()
    assert catalog.reload() is True
    assert [task.name for task in catalog.tasks] == ["two"]
    assert catalog.get("two") is two
    with pytest.raises(UnknownTask, match="Tasks here: two"):
        catalog.get("one")


def test_a_broken_edit_keeps_the_last_good_version(catalog: Catalog, write: Write) -> None:
    good = catalog.get("one")
    for template in ("Say {txt}:", "Say {text", "nothing"):
        write("one.yaml", template=template)
        assert catalog.reload() is True
        assert catalog.get("one") is good
        (error,) = catalog.errors
        assert (error.file, error.serving) == ("one.yaml", "one")
        assert "one.yaml:" in error.message
    write("one.yaml", template="Now {text}:")
    catalog.reload()
    assert catalog.errors == []
    assert catalog.get("one").file.template == "Now {text}:"


def test_a_broken_file_that_is_deleted_is_forgotten(catalog: Catalog, write: Write) -> None:
    write("bad.yaml", template="{")
    catalog.reload()
    assert [(error.file, error.serving) for error in catalog.errors] == [("bad.yaml", None)]
    (catalog.folder / "bad.yaml").unlink()
    catalog.reload()
    assert catalog.errors == []


def test_a_new_file_cannot_take_the_name_of_a_task(catalog: Catalog, write: Write) -> None:
    good = catalog.get("one")
    write("aaa.yaml", summary="A thief.")
    catalog.reload()
    assert catalog.get("one") is good
    assert [error.file for error in catalog.errors] == ["aaa.yaml"]
    (catalog.folder / "one.yaml").unlink()
    catalog.reload()
    assert catalog.get("one").file.summary == "A thief."
    assert catalog.errors == []


def test_links_out_of_the_folder_are_not_followed(
    catalog: Catalog, write: Write, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.yaml"
    outside.write_text(FILE.format(name="secret", summary="x", template="{text}"))
    (catalog.folder / "link.yaml").symlink_to(outside)
    inside = write("target.yaml", name="target")
    inside.rename(catalog.folder / "target.txt")
    (catalog.folder / "alias.yaml").symlink_to("target.txt")
    (catalog.folder / "gone.yaml").symlink_to("missing.yaml")
    (catalog.folder / "loop.yaml").symlink_to("loop.yaml")
    catalog.reload()
    assert [task.name for task in catalog.tasks] == ["one", "target"]
    assert [error.file for error in catalog.errors] == ["gone.yaml", "link.yaml", "loop.yaml"]
    assert "not followed" in catalog.errors[1].message


def test_other_files_are_left_alone(catalog: Catalog, write: Write) -> None:
    for name in (".hidden.yaml", "notes.md", "one.yaml~", ".one.yaml.swp"):
        write(name, template="{")
    (catalog.folder / "folder.yaml").mkdir()
    assert catalog.reload() is False


def test_a_file_that_cannot_be_read_keeps_its_task(catalog: Catalog) -> None:
    path = catalog.folder / "one.yaml"
    path.write_text("# " + "x" * 300_000)
    catalog.reload()
    assert "larger than" in catalog.errors[0].message
    assert catalog.get("one").file.summary == "A task."


def test_an_edit_is_live_within_two_seconds(catalog: Catalog, write: Write) -> None:
    async def edit_while_watching() -> None:
        watcher = asyncio.create_task(catalog.watch())
        await asyncio.sleep(0.3)
        generation = catalog.generation
        whole = write(".new.tmp", summary="Edited.")
        os.replace(whole, catalog.folder / "one.yaml")  # noqa: PTH105  # as editors do
        async with asyncio.timeout(2):
            while catalog.generation == generation:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)

    asyncio.run(edit_while_watching())
    assert catalog.get("one").file.summary == "Edited."


def test_a_folder_that_was_deleted_and_made_again_is_watched_again(
    catalog: Catalog, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    content = (catalog.folder / "one.yaml").read_text()

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    def has_summary(summary: str) -> bool:
        return any(task.file.summary == summary for task in catalog.tasks)

    async def replace_while_watching() -> None:
        watcher = asyncio.create_task(catalog.watch())
        await asyncio.sleep(0.3)
        shutil.rmtree(catalog.folder)
        await asyncio.sleep(1.5)
        assert has_summary("A task."), "without a folder the tasks go on as they are"
        catalog.folder.mkdir()
        (catalog.folder / "one.yaml").write_text(content.replace("A task.", "Made again."))
        await until(lambda: has_summary("Made again."))
        (catalog.folder / "one.yaml").write_text(content.replace("A task.", "And edited."))
        await until(lambda: has_summary("And edited."))
        catalog.folder.rename(elsewhere / "old")
        shutil.copytree(elsewhere / "old", elsewhere / "new")
        (elsewhere / "new" / "one.yaml").write_text(content.replace("A task.", "Swapped."))
        (elsewhere / "new").rename(catalog.folder)
        await until(lambda: has_summary("Swapped."))
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)

    asyncio.run(replace_while_watching())


def test_watching_goes_on_after_the_system_refused_it(
    catalog: Catalog, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All watches in use: that passes."""
    monkeypatch.setattr("zeroshot.tasks.catalog._WATCH_AGAIN_S", 0.01)
    awatch, refusals = catalog_module.awatch, [OSError(28, "No space left on device"), FileNotFoundError()]

    def scarce(*arguments: Any, **options: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return awatch(*arguments, **options)

    monkeypatch.setattr(catalog_module, "awatch", scarce)

    async def edit_while_watching() -> None:
        watcher = asyncio.create_task(catalog.watch())
        write("two.yaml", name="two")
        async with asyncio.timeout(10):
            while "two" not in [task.name for task in catalog.tasks]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)

    asyncio.run(edit_while_watching())


def test_prewarming_is_tried_again_until_it_is_done(bundled: Any, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeroshot.tasks.prewarm._RETRY_INTERVAL_S", 0.01)
    complete, refusals = client.complete, [RuntimeError("odd"), Overloaded("full", retry_after_s=1)]
    client.status, client.engines = "ready", 1

    async def refuse_first(request: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await complete(request)

    monkeypatch.setattr(client, "complete", refuse_first)

    async def warm() -> None:
        warming = asyncio.create_task(keep_warm(bundled.catalog, client))
        async with asyncio.timeout(30):
            while len(client.requests) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        warming.cancel()
        await asyncio.gather(warming, return_exceptions=True)

    asyncio.run(warm())
    assert refusals == []


def test_prewarming_puts_few_shot_examples_into_the_prefix_cache(bundled: Any, client: Any) -> None:
    assert asyncio.run(prewarm(bundled.catalog, client)) == 2  # answer, and the pairs of translate
    answer = bundled.post("/tasks/answer", {"question": "Who?", "max_tokens": 1, "explain": True}).json()
    assert answer["explain"]["cached_tokens"] >= 32
    assert answer["usage"]["cached_tokens"] == answer["explain"]["cached_tokens"]
