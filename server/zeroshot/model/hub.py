"""A model's name -> its folder, downloading it from the Hugging Face hub when it isn't here yet."""

import errno
import fcntl
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zeroshot.errors import UnknownModel, WeightsError
from zeroshot.model.checkpoint import check_checkpoint
from zeroshot.model.config import GPT2Config

logger = logging.getLogger(__name__)

_ANSWER_TIMEOUT_S = 10.0
_FILES = [
    *("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json"),
    *("tokenizer.json", "vocab.json", "merges.txt"),
]


def fetch_model(name: str, weights_dir: Path) -> Path:
    """The folder of a model, downloaded if it isn't here, and checked. Raises UnknownModel or WeightsError."""
    folder = find_model(name, weights_dir) or download_model(name, weights_dir)
    check_checkpoint(folder, GPT2Config.from_folder(folder))
    return folder


def find_model(name: str, weights_dir: Path) -> Path | None:
    """The folder of a model that is here: `name` itself if it is one, or `weights_dir/name`. Raises WeightsError."""
    for folder in _places(name, weights_dir):
        try:
            if (folder / "config.json").is_file():
                return folder.resolve()
        except OSError as error:  # a folder that may not be read, or a name that is too long for one
            raise WeightsError(f"{folder} can't be read: {error.strerror}") from None
    return None


def _places(name: str, weights_dir: Path) -> tuple[Path, Path]:
    return Path(name), weights_dir / name.replace("/", "--")


def download_model(name: str, weights_dir: Path) -> Path:
    """Fetch a checkpoint, showing progress; an interrupted download is taken up where it stopped.

    The folder gets its name once it is complete, so that a partial download is never taken for the model. Afterwards
    the model is served with no network. Of several downloads of one model at once, one fetches it and the others wait.
    Raises UnknownModel or WeightsError with what to do about it.
    """
    from huggingface_hub import HfApi  # half of a server's imports, and seldom needed
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        # Once: the calls that fetch files try five times, half a minute where there is no network.
        files = HfApi().model_info(name, timeout=_ANSWER_TIMEOUT_S).siblings or []
        if not any(file.rfilename.endswith(".safetensors") for file in files):
            raise WeightsError(f"{name} has no safetensors file on the hub, and pickled weights are not read.")
        return _fetch(name, weights_dir)
    except (RepositoryNotFoundError, GatedRepoError):
        raise UnknownModel(
            f"There is no model {name!r}: not a checkpoint's folder, not in {weights_dir}, and not on the Hugging Face "
            f"hub. {_what_is_here(name, weights_dir)}"
        ) from None
    except HFValidationError:
        if Path(name).is_dir():
            raise WeightsError(f"{name} is not a checkpoint: the folder has no config.json.") from None
        raise UnknownModel(
            f"There is no model {name!r}: no such folder, nothing of that name in {weights_dir}, "
            f"and the Hugging Face hub has no such names. {_what_is_here(name, weights_dir)}"
        ) from None
    except WeightsError:
        raise
    except Exception as error:  # the hub's library lets the errors of whichever HTTP library it uses through
        if _is_of_the_disk(error):
            raise WeightsError(
                f"{name} can't be written to {weights_dir}: {error}. Make room there, or name another folder in "
                f"ZEROSHOT_WEIGHTS_DIR. The next try takes up what has come so far."
            ) from error
        raise WeightsError(
            f"{name} is not in {weights_dir} and the Hugging Face hub can't be reached ({error}). "
            f"Run `zeroshot download {name}` where there is a network, or pass a folder. "
            f"{_what_is_here(name, weights_dir)}"
        ) from error


def _fetch(name: str, weights_dir: Path) -> Path:
    """Files from the hub to the model's folder, unless another download has put them there meanwhile."""
    from huggingface_hub import snapshot_download

    from zeroshot.model.progress import ProgressLines

    _, folder = _places(name, weights_dir)
    partial = folder.with_name(f".{folder.name}.partial")
    weights_dir.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(folder.with_name(f".{folder.name}.lock")):
        found = find_model(name, weights_dir)
        if found is not None:
            return found
        progress = None if sys.stderr.isatty() else ProgressLines
        snapshot_download(name, local_dir=partial, allow_patterns=_FILES, tqdm_class=progress)
        try:
            partial.rename(folder)
        except OSError as error:  # something of that name is in the way, perhaps
            raise WeightsError(f"{name} is in {partial}, but can't be moved to {folder}: {error}") from None
    return folder.resolve()


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """Whoever comes meanwhile waits. A file system that has no locks lets everybody in."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("%s is locked by another download of this model: waiting for it", lock)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        yield


def _is_of_the_disk(error: Exception) -> bool:
    """The hub's own kinds of OSError have no number, and those of connections are not about files."""
    is_of_a_connection = isinstance(error, ConnectionError | TimeoutError)
    return isinstance(error, OSError) and error.errno is not None and not is_of_a_connection


def _what_is_here(name: str, weights_dir: Path) -> str:
    folders = [folder for folder in _places(name, weights_dir) if folder.is_dir()]
    names = sorted(config.parent.name for config in weights_dir.glob("[!.]*/config.json"))
    return (
        "".join(f"The folder {folder} has no config.json. " for folder in folders)
        + f"{weights_dir} has {', '.join(names) or 'no model'}."
    )
