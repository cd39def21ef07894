"""A Docker engine for tests/docker: the machine's own, or a private one that is started for them and ends with them.

Where no image registry can be reached, a base image is put together from Debian's packages. It stands in for the public
one: what passes on it proves our steps and wiring, not the public image.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
ENOUGH_MEMORY = 12 * 2**30
STAND_IN = "zeroshot-test-base:python3.11"
# Debian's python3 named and placed as in the public image; the machine's certificates, which its mirrors may need.
STAND_IN_DOCKERFILE = f"""
FROM {STAND_IN}-raw
COPY ca.crt {CA_BUNDLE}
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    PIP_CERT={CA_BUNDLE} SSL_CERT_FILE={CA_BUNDLE}
RUN rm -f /usr/lib/python3*/EXTERNALLY-MANAGED && ln -s /usr/bin/python3 /usr/local/bin/python
"""
# No firewall rules and no bridge of its own: nothing outside of its folder changes on the machine.
PRIVATE = ["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--bridge=none"]


class Unavailable(Exception):
    """Why there is no engine here."""


@dataclass
class DockerEngine:
    """How to talk to it: `environment` names its socket."""

    environment: dict[str, str] = field(default_factory=dict)
    scratch: Path | None = None
    """A place for large files, if it has one."""

    @property
    def has_bridge(self) -> bool:
        """Builds on an engine without one need the host's network."""
        return bool(self.docker("network", "ls", "--quiet", "--filter", "driver=bridge", "--filter", "name=bridge"))

    def run(self, *command: str, check: bool = True, timeout: float = 120, **options: Any) -> str:
        """Standard output of a command that talks to this engine."""
        result = subprocess.run(
            ["env", *command],  # env looks it up in the path of this environment
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            **options,
        )
        assert not check or result.returncode == 0, (
            f"{' '.join(command)}:\n{result.stdout[-3000:]}{result.stderr[-6000:]}"
        )
        return result.stdout.strip()

    def docker(self, *arguments: str, **options: Any) -> str:
        return self.run("docker", *arguments, **options)


@contextmanager
def docker_engine() -> Iterator[DockerEngine]:
    """Raises Unavailable, saying what is missing."""
    if shutil.which("docker") is None:
        raise Unavailable("docker is not installed")
    own = DockerEngine()
    if own.docker("info", "--format", "{{.ServerVersion}}", check=False):
        yield own
        return
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        raise Unavailable("no Docker engine runs, and starting one takes root and dockerd")
    with tempfile.TemporaryDirectory(prefix="zeroshot-docker-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with in_memory(folder), private(folder) as engine:
            yield engine


@contextmanager
def in_memory(folder: Path) -> Iterator[None]:
    """Where there is plenty of it: a build writes gigabytes that nobody wants to keep, and disks may be slow."""
    if psutil.virtual_memory().available < ENOUGH_MEMORY:
        yield
        return
    command = ["mount", "-t", "tmpfs", "-o", f"size={ENOUGH_MEMORY // 2}", "zeroshot-docker", str(folder)]
    is_mounted = subprocess.run(command, check=False).returncode == 0
    try:
        yield
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


@contextmanager
def private(folder: Path) -> Iterator[DockerEngine]:
    """An engine whose state is all in `folder`."""
    host = f"unix://{folder}/docker.sock"
    places = ["--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")]
    command = ["dockerd", "-H", host, *places, "--pidfile", str(folder / "dockerd.pid"), *PRIVATE]
    with (folder / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    # The client of dockerd's own package has BuildKit built in, which another one in the path may lack.
    path = f"/usr/bin:{os.environ['PATH']}"
    scratch = folder / "scratch"
    scratch.mkdir()
    scratch.chmod(0o755)
    folder.chmod(0o755)  # mmdebstrap's own user works in there
    build = {"DOCKER_BUILDKIT": "1", "COMPOSE_DOCKER_CLI_BUILD": "1"}
    engine = DockerEngine({"DOCKER_HOST": host, "PATH": path, "TMPDIR": str(scratch)} | build, scratch)
    try:
        for _ in range(300):
            if engine.docker("info", "--format", "{{.ServerVersion}}", check=False):
                break
            if process.poll() is not None:
                raise Unavailable(f"dockerd does not start here: {(folder / 'dockerd.log').read_text()[-500:]}")
            time.sleep(0.1)
        yield engine
        containers = engine.docker("ps", "--all", "--quiet").split()
        if containers:
            engine.docker("rm", "--force", "--volumes", *containers)
    finally:
        process.terminate()
        process.wait(timeout=60)
        for mount in _mounts_under(folder):
            subprocess.run(["umount", mount], check=False)


def _mounts_under(folder: Path) -> list[str]:
    """Innermost first."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True)


def pull(engine: DockerEngine, image: str) -> bool:
    """Whether the image is here now."""
    if engine.docker("images", "--quiet", image):
        return True
    engine.docker("pull", "--quiet", image, check=False, timeout=300)
    return bool(engine.docker("images", "--quiet", image))


def make_stand_in(engine: DockerEngine, folder: Path) -> str:
    """The stand-in's tag. Raises Unavailable where Debian's tool for it is missing."""
    if engine.docker("images", "--quiet", STAND_IN):
        return STAND_IN
    if shutil.which("mmdebstrap") is None or os.geteuid() != 0:
        raise Unavailable("no image registry can be reached, and a stand-in base image takes root and mmdebstrap")
    options = ["--variant=minbase", "--dpkgopt=force-unsafe-io"]  # nobody needs it after a power cut
    packages = "--include=python3,python3-venv,python3-pip,ca-certificates"
    archive = folder / "base.tar"
    engine.run("mmdebstrap", "--quiet", *options, packages, "bookworm", str(archive), timeout=600)
    engine.docker("import", str(archive), f"{STAND_IN}-raw")
    archive.unlink()
    shutil.copyfile(CA_BUNDLE, folder / "ca.crt")
    (folder / "Dockerfile").write_text(STAND_IN_DOCKERFILE)
    engine.docker("build", "--quiet", "--network=host", "--tag", STAND_IN, str(folder))
    return STAND_IN


def wheel_folders() -> list[Path]:
    """The folders pip is configured to look for wheels in."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    values = [line.split("=", 1)[1].strip("'\"") for line in listing.splitlines() if "find-links=" in line]
    paths = {Path(part.removeprefix("file://")) for value in values for part in value.replace("\\n", " ").split()}
    return sorted(path for path in paths if path.is_dir() and list(path.glob("torch-*.whl")))


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder's URL on loopback: a page of links, as pip's --find-links wants it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass
