"""The committed build of the page is of the committed sources; their own tests pass. The second half needs npm."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from zeroshot.api.playground import page

STATIC = page.STATIC
WEB = STATIC.parent / "web"


def source_files() -> list[str]:
    """All but what a build doesn't see, as in web/build/record.ts."""
    paths = (path.relative_to(WEB) for path in WEB.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if path.parts[0] not in ("node_modules", "tests"))


def test_the_build_is_of_these_sources():
    digest = hashlib.sha256()
    for name in source_files():
        content = (WEB / name).read_bytes()
        digest.update(f"{name}\n{len(content)}\n".encode() + content)
    built = json.loads((STATIC / "build.json").read_text())
    assert built["sources_sha256"] == digest.hexdigest(), "web/ has changed since the last build: run make playground"


def test_the_licences_of_what_is_in_the_build_are_with_it():
    text = (STATIC / "THIRD_PARTY_LICENSES.txt").read_text()
    assert "The MIT License" in text
    assert text.count("SIL OPEN FONT LICENSE") >= 3


@pytest.fixture(scope="module")
def npm() -> str:
    """npm, with the packages that web/package-lock.json names in their place."""
    command = shutil.which("npm")
    if command is None:
        pytest.skip("there is no npm: the page's sources can be neither rebuilt nor tested")
    if not (WEB / "node_modules").is_dir():
        installed = subprocess.run([command, "ci"], cwd=WEB, capture_output=True, text=True, check=False)
        if installed.returncode:
            shutil.rmtree(WEB / "node_modules", ignore_errors=True)
            pytest.skip(f"npm ci failed: {installed.stderr.strip()[-300:]}")
    return command


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_rebuild_gives_the_same_files(npm: str, tmp_path: Path):
    command = [npm, "run", "--silent", "build", "--", "--outDir", str(tmp_path / "static"), "--logLevel", "warn"]
    built = subprocess.run(command, cwd=WEB, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    rebuilt, committed = contents(tmp_path / "static"), contents(STATIC)
    assert rebuilt.keys() == committed.keys()
    assert [name for name in rebuilt if rebuilt[name] != committed[name]] == []


def test_the_page_s_own_tests_pass(npm: str):
    result = subprocess.run([npm, "test", "--silent"], cwd=WEB, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
