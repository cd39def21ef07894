"""The prompts folder as bytes, and back: it travels with the deployment, so that no node needs a shared disk.

By value, and not as a reference into Ray's object store: an object there dies with the process that has put it in,
and `zeroshot deploy` ends long before the replicas that a node failure makes anew.
"""

import io
import zipfile
from pathlib import Path

from zeroshot.errors import PromptFileError

MAX_PACKED_BYTES = 4 * 2**20
_SUFFIXES = (".yaml", ".yml")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(folder: Path) -> bytes:
    """The same bytes for the same files: an unchanged folder is no new version. Raises PromptFileError."""
    if not folder.is_dir():
        raise PromptFileError(f"{folder} is not a folder; --prompts names the one with the prompt files")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.suffix in _SUFFIXES and path.is_file():
                name = path.relative_to(folder).as_posix()
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), path.read_bytes(), zipfile.ZIP_DEFLATED)
    if buffer.tell() > MAX_PACKED_BYTES:
        raise PromptFileError(f"{folder} takes {buffer.tell()} bytes; at most {MAX_PACKED_BYTES} can be deployed.")
    return buffer.getvalue()


def unpack(packed: bytes, folder: Path) -> None:
    """Write the files under `folder`. Names that would lead out of it are made harmless by `zipfile`."""
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        archive.extractall(folder)
