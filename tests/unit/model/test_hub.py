"""Downloads from a server on loopback that speaks as much of the hub's protocol as `huggingface_hub` asks for."""

import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from zeroshot.errors import WeightsError
from zeroshot.model.hub import _one_at_a_time, find_model

REVISION = "0" * 39 + "1"
DOWNLOAD = (
    "import sys; from pathlib import Path; from zeroshot.model.hub import *; "
    "download_model(sys.argv[2], Path(sys.argv[1]))"
)


class Hub(ThreadingHTTPServer):
    """`files` by name; a download of `breaks_at` is cut in its middle, once. The first answers wait for each other."""

    files: dict[str, bytes]
    breaks_at: str | None = None
    first_answers: threading.Barrier | None = None
    sent: list[str]
    """Names of the files that were sent."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.split("?")[0]
        match = re.fullmatch(r"/gpt2/resolve/[^/]+/(.+)", path)
        if match and match[1] in self.server.files:
            self._file(match[1], with_body=with_body)
        elif path.startswith("/api/models/gpt2/tree"):
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.server.files.items()
            ]
            self._json(entries)
        elif path.startswith("/api/models/gpt2"):
            if self.server.first_answers is not None:
                self.server.first_answers.wait()
                self.server.first_answers = None
            self._json({"id": "gpt2", "sha": REVISION, "siblings": [{"rfilename": name} for name in self.server.files]})
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _json(self, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _file(self, name: str, *, with_body: bool) -> None:
        content = self.server.files[name]
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if with_body and self.server.breaks_at == name:
            self.wfile.write(content[start : len(content) // 2])
            self.wfile.flush()
            self.close_connection = True
        elif with_body:
            self.server.sent.append(name)
            self.wfile.write(content[start:])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub(("127.0.0.1", 0), Handler)
    server.files = {"config.json": b"{}", "vocab.json": b"{}", "model.safetensors": bytes(range(256)) * 2**16}
    server.files["pytorch_model.bin"] = b"never read"
    server.sent = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def download(
    hub: Hub, folder: Path, name: str = "gpt2", max_file_bytes: int = resource.RLIM_INFINITY
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / ".cache")}
    return subprocess.run(
        [sys.executable, "-c", DOWNLOAD, str(folder), name],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (max_file_bytes, resource.RLIM_INFINITY)),
    )


def test_a_download_shows_progress_in_lines(hub: Hub, tmp_path: Path) -> None:
    result = download(hub, tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "gpt2/model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert not (tmp_path / "gpt2/pytorch_model.bin").exists()
    assert "16.8M" in result.stderr
    assert "\r" not in result.stderr


def test_half_a_download_is_no_model(hub: Hub, tmp_path: Path) -> None:
    """It is not found under its name, and the next try ends what the first began."""
    hub.breaks_at = "model.safetensors"
    first = download(hub, tmp_path)
    assert first.returncode != 0
    assert not (tmp_path / "gpt2").exists()
    hub.breaks_at = None
    assert download(hub, tmp_path).returncode == 0
    assert (tmp_path / "gpt2/model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_several_downloads_of_one_model_are_one(hub: Hub, tmp_path: Path) -> None:
    """As when several replicas start on one machine."""
    hub.first_answers = threading.Barrier(3)
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: download(hub, tmp_path), range(3)))
    assert [result.returncode for result in results] == [0, 0, 0], [result.stderr for result in results]
    assert sorted(hub.sent) == ["config.json", "model.safetensors", "vocab.json"]
    assert (tmp_path / "gpt2/model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert not (tmp_path / ".gpt2.partial").exists()


def test_who_waits_for_another_download_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lock, order = tmp_path / ".gpt2.lock", []

    def second() -> None:
        with _one_at_a_time(lock):
            order.append("second")

    with _one_at_a_time(lock):
        thread = threading.Thread(target=second)
        thread.start()
        while not caplog.records:
            time.sleep(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert f"{lock} is locked by another download of this model" in caplog.text


def test_a_hub_that_can_not_be_reached_is_asked_once(hub: Hub, tmp_path: Path) -> None:
    """And the models that are here are named."""
    for name in ("demo", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    hub.shutdown()
    hub.server_close()
    result = download(hub, tmp_path)
    assert "the Hugging Face hub can't be reached" in result.stderr
    assert f"{tmp_path} has demo, mine." in result.stderr
    assert "Retrying" not in result.stderr


def test_a_name_that_the_hub_does_not_know(hub: Hub, tmp_path: Path) -> None:
    result = download(hub, tmp_path, name="gpt3")
    assert "UnknownModel" in result.stderr
    assert "not on the Hugging Face hub" in result.stderr
    assert f"{tmp_path} has no model." in result.stderr


def test_a_folder_that_is_no_checkpoint_is_named(hub: Hub, tmp_path: Path) -> None:
    """Its name could also be one on the hub, which is asked first."""
    (tmp_path / "mine").mkdir()
    result = download(hub, tmp_path, name="mine")
    assert f"The folder {tmp_path / 'mine'} has no config.json." in result.stderr


def test_a_disk_that_is_full_is_not_taken_for_a_network_that_is_away(hub: Hub, tmp_path: Path) -> None:
    """What has come is taken up once there is room."""
    result = download(hub, tmp_path, max_file_bytes=2**20)
    assert "gpt2 can't be written to" in result.stderr
    assert "can't be reached" not in result.stderr
    assert download(hub, tmp_path).returncode == 0
    assert (tmp_path / "gpt2/model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_a_name_that_no_folder_can_have(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="File name too long"):
        find_model("a" * 300, tmp_path)
