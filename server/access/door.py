"""The door: whether it is kept, and who a request comes from."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from server.access.caller import ANONYMOUS, Caller
from server.access.keys import AccessError, Keyring, read_keys
from server.access.settings import AccessSettings
from server.errors import UnauthenticatedError


class Door:
    """Lets callers in by their keys, or everybody where there are none."""

    def __init__(self, keyring: Keyring | None) -> None:
        """Ask for a key of `keyring`; None lets everybody in."""
        self._keyring = keyring

    @property
    def guarded(self) -> bool:
        """Whether a key is needed."""
        return self._keyring is not None

    def caller(self, key: str | None) -> Caller:
        """Return who comes with this key, or without one.

        Raises:
            UnauthenticatedError: a key is needed, and this is none.
        """
        if self._keyring is None:
            return ANONYMOUS
        if key is None:
            raise UnauthenticatedError(
                "an API key is needed: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
            )
        caller = self._keyring.caller(key)
        if caller is None:
            raise UnauthenticatedError("this API key is not known here", wrong_key=True)
        return caller


def open_door(settings: AccessSettings, host: str) -> Door:
    """Return the door of a server that listens on `host`.

    Raises:
        AccessError: the keys cannot be read, or there are none although other machines can connect.
    """
    if settings.keys is not None:
        return Door(read_keys(settings.keys))
    if is_loopback(host) or settings.open:
        return Door(None)
    raise AccessError(
        f"listening on {host or 'every address'} lets other machines in, and there are no API keys. "
        "Make one with `python -m server key new --id NAME` and name its file in DDO_ACCESS__KEYS; or listen "
        "on 127.0.0.1; or, behind something that checks callers itself, set DDO_ACCESS__OPEN=true"
    )


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
