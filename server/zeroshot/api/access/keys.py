"""API keys: read once at start-up, kept as SHA-256 digests, compared in constant time."""

import hashlib
import hmac
import logging
from dataclasses import dataclass
from pathlib import Path

from zeroshot.errors import SettingsError
from zeroshot.settings import Settings

logger = logging.getLogger(__name__)

MIN_KEY_CHARS = 16
"""Shorter keys are accepted with a warning: they can be guessed."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whoever holds one key; without keys, everybody together."""

    name: str
    """For logs and metrics: the beginning of the key's digest, which tells nothing about the key."""
    cache_salt: bytes = b""


EVERYBODY = Tenant("everybody")


class ApiKeys:
    """Finds out whose a key is; keeps only digests of the keys."""

    def __init__(self, keys: list[str]) -> None:
        self._tenants = {_digest(key.encode()): _tenant(key.encode()) for key in keys}

    @classmethod
    def load(cls, settings: Settings) -> "ApiKeys":
        """From the environment, the flags and the file together. Raises SettingsError, which never shows a key."""
        keys = [key.get_secret_value() for key in settings.api_keys]
        if settings.api_keys_file is not None:
            from_file = _read(settings.api_keys_file)
            if not from_file:
                raise SettingsError(f"Setting api_keys_file: {settings.api_keys_file} has no key in it.")
            keys += from_file
        for number, key in enumerate(keys, start=1):
            if not key:  # as of --api-key "$KEY" without a KEY
                raise SettingsError(f"Setting api_keys: key {number} is empty.")
            if not (key.isascii() and key.isprintable()) or " " in key:
                raise SettingsError(f"Setting api_keys: key {number} is not of printable ASCII without spaces.")
            if len(key) < MIN_KEY_CHARS:
                logger.warning("API key %d has fewer than %d characters: it can be guessed", number, MIN_KEY_CHARS)
        return cls(keys)

    def __len__(self) -> int:
        return len(self._tenants)

    def find(self, key: bytes) -> Tenant | None:
        """Whose key it is. Takes equally long for every key, right or wrong."""
        presented = _digest(key)
        found: Tenant | None = None
        for digest, tenant in self._tenants.items():
            if hmac.compare_digest(digest, presented):
                found = tenant
        return found


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _tenant(key: bytes) -> Tenant:
    return Tenant(_digest(key).hex()[:8], hashlib.sha256(b"zeroshot cache salt " + key).digest()[:16])


def _read(file: Path) -> list[str]:
    """One key a line; blank lines and lines that begin with # are skipped."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"Setting api_keys_file: {file} can't be read: {error}") from None
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
