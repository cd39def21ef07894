"""README.md and docs/ by example: a server with the bundled model answers each `curl` with what stands below it."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import DEMO
from tests.support.server import Server, run_server
from zeroshot.tasks.catalog import Catalog
from zeroshot.tasks.prewarm import MIN_PREFIX_TOKENS
from zeroshot.text.tokenizer import Tokenizer

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}
EXAMPLE = re.compile(r"^\$ (curl (?:\\\n|'[^']*'|[^\n'])+)\n(.+?)(?=^\$ |^```$)", re.DOTALL | re.MULTILINE)
PROMPT_FILES = (
    re.compile(r"^```yaml\n(?P<content># prompts/(?P<name>\w+\.yaml)\n.*?)^```$", re.DOTALL | re.MULTILINE),
    re.compile(r"^\$ cat > prompts/(?P<name>\w+\.yaml) <<'EOF'\n(?P<content>.*?)^EOF$", re.DOTALL | re.MULTILINE),
)
EXAMPLES = [
    pytest.param(*example, id=f"{page} {number}")
    for page, text in PAGES.items()
    for number, example in enumerate(EXAMPLE.findall(text), 1)
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the prompt files that the pages tell to write."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(ROOT / "prompts", folder / "prompts")
    for match in (match for text in PAGES.values() for pattern in PROMPT_FILES for match in pattern.finditer(text)):
        (folder / "prompts" / match["name"]).write_text(match["content"], encoding="utf-8")
    catalog = Catalog(folder / "prompts", tokenizer=Tokenizer.from_folder(DEMO), max_model_len=1024)
    num_prefix_tokens = sum(len(prefix) for prefix in catalog.prefixes() if len(prefix) >= MIN_PREFIX_TOKENS)
    with run_server(DEMO, folder, "--device", "cpu", "--prompts", str(folder / "prompts")) as server:
        # More: the engine has run a token of its own first. What is cached is part of the answers.
        server.wait_until(lambda health: health["engine"]["prompt_tokens_total"] > num_prefix_tokens)
        server.wait_until_idle()
        yield server


def comparable(answer: str) -> str:
    """Without white space, ids, and the digits of numbers that are another processor's."""
    answer = re.sub(r'"id":"[^"]*"', '"id":""', "".join(answer.split()))
    return re.sub(r"(\.\d{3})\d+", r"\1", answer)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 11


@pytest.mark.parametrize(("command", "answer"), EXAMPLES)
def test_an_example_is_answered_as_it_says(demo: Server, command: str, answer: str) -> None:
    words = shlex.split(command)
    path = next(re.sub(r"^localhost:\d+", "", word) for word in words if word.startswith("localhost:"))
    body = words[words.index("-d") + 1]
    found = demo.http.post(path, content=body, headers={"Content-Type": "application/json"}).text
    pieces = re.split(r"\.\.\.|…", comparable(answer))
    assert re.fullmatch(".*".join(map(re.escape, pieces)), comparable(found)), found


def test_what_the_weather_task_answers(demo: Server) -> None:
    said = re.search(r"answers the example with `(.+?)`", PAGES["tasks.md"])
    example = demo.http.get("/tasks/weather").json()["example"]
    assert said is not None
    assert demo.http.post("/tasks/weather", json=example).json()["output"] == json.loads(said[1])
