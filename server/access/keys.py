"""API keys. The server knows their SHA-256 only.

A key is 32 random bytes in base64, made here and nowhere else. Nobody can try or tabulate 2**256 values, so
its hash needs neither salt nor a slow function such as scrypt: those protect what people choose, and would
let strangers spend the server's time with every wrong key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError

from models.frozen import FrozenModel
from server.access.caller import Caller, Limits

PREFIX = "ddo_"  # Lets scanners of repositories and logs find a key that leaked.
KEY_BYTES = 32

KeyId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class AccessError(ValueError):
    """The server cannot start with these keys, or without."""


class StoredKey(Limits):
    """One key as the file has it.

    Attributes:
        sha256: of the key, in hexadecimal.
        admin: whether it opens the routes under `/admin` too.
    """

    sha256: Digest
    admin: bool = False


class KeyFile(FrozenModel):
    """The file of keys: a table `[keys.ID]` for each."""

    keys: dict[KeyId, StoredKey] = Field(min_length=1)


class Keyring:
    """The keys that open this server."""

    def __init__(self, file: KeyFile) -> None:
        """Hold the keys of `file`."""
        self._callers = [
            (
                bytes.fromhex(key.sha256),
                Caller(
                    id,
                    admin=key.admin,
                    limits=Limits(concurrency=key.concurrency, images_per_minute=key.images_per_minute),
                ),
            )
            for id, key in file.keys.items()
        ]

    def caller(self, key: str) -> Caller | None:
        """Return whose key this is, or None; the time it takes tells nothing about the keys."""
        digest = hashlib.sha256(key.encode()).digest()
        found = None
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        return found


def read_keys(path: Path) -> Keyring:
    """Read a file of keys.

    Raises:
        AccessError: it cannot be read, is not TOML, has no key or an entry that is not one.
    """
    try:
        content = tomllib.loads(path.read_text())
        return Keyring(KeyFile.model_validate(content))
    except OSError as error:
        raise AccessError(f"the file of API keys cannot be read: {error}") from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
        raise AccessError(f"{path} is not a file of API keys: {wrong}") from None
    except ValueError as error:
        raise AccessError(f"{path} is not TOML: {error}") from None


def new_key() -> str:
    """Return a new key."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def digest_of(key: str) -> str:
    """Return what the file holds of a key."""
    return hashlib.sha256(key.encode()).hexdigest()
