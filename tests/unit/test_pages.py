"""README.md and docs/: what they link to and name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)\s#]*)(?:#([^)\s]+))?\)", page.read_text(encoding="utf-8"))
    for file, anchor in links:
        target = page.parent / file if file else page
        assert target.exists(), file
        assert not anchor or anchor in anchors(target), f"{file}#{anchor}"


@pages
def test_the_files_named_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    told_to_write = set(re.findall(r"# (prompts/\w+\.yaml)$", text, re.MULTILINE))
    folders = "tests|benchmarks|server|kernels|docker|prompts|docs|training|scripts"
    for file in set(re.findall(rf"`((?:{folders})/[\w./-]+)[`:]", text)) - told_to_write:
        assert (ROOT / file).exists(), file


@pages
def test_the_tests_named_are_there(page: Path) -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py"))
    for name in re.findall(r"[`:](test_\w+)`", page.read_text(encoding="utf-8")):
        assert f"def {name}(" in tests, name
