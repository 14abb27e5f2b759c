"""How the door is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import field_validator
from pydantic_settings import NoDecode

from models.frozen import FrozenModel

Names = Annotated[tuple[str, ...], NoDecode]


class AccessSettings(FrozenModel):
    """Who may use the server. The environment takes lists with commas.

    Attributes:
        keys: TOML file of API keys, see `server.access.keys`; with one, every request but probes, the
            page and the documentation needs a key.
        open: serve everybody although no key is configured and other machines can connect.
        open_metrics: show `/metrics` without a key.
        hosts: names by which browsers and clients may reach a server that asks for no key, beside those
            of this machine; `*` allows every name.
        cors_origins: origins whose pages may call the server, such as `https://example.org`.
    """

    keys: Path | None = None
    open: bool = False
    open_metrics: bool = False
    hosts: Names = ()
    cors_origins: Names = ()

    @field_validator("hosts", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
