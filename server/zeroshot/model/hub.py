"""A model's name -> its folder, downloading it from the Hugging Face hub when it isn't here yet."""

import sys
from pathlib import Path

from zeroshot.errors import UnknownModel, WeightsError
from zeroshot.model.checkpoint import check_checkpoint
from zeroshot.model.config import GPT2Config

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
    the model is served with no network. Raises UnknownModel or WeightsError with what to do about it.
    """
    from huggingface_hub import HfApi, snapshot_download  # half of a server's imports, and seldom needed
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    from zeroshot.model.progress import ProgressLines

    _, folder = _places(name, weights_dir)
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        # Once: the calls that fetch files try five times, half a minute where there is no network.
        files = HfApi().model_info(name, timeout=_ANSWER_TIMEOUT_S).siblings or []
        if not any(file.rfilename.endswith(".safetensors") for file in files):
            raise WeightsError(f"{name} has no safetensors file on the hub, and pickled weights are not read.")
        progress = None if sys.stderr.isatty() else ProgressLines
        snapshot_download(name, local_dir=partial, allow_patterns=_FILES, tqdm_class=progress)
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
    try:
        partial.rename(folder)
    except OSError as error:  # something of that name is in the way, perhaps
        raise WeightsError(f"{name} is in {partial}, but can't be moved to {folder}: {error}") from None
    return folder.resolve()


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
