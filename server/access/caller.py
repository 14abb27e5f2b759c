"""Who sends a request."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from models.frozen import FrozenModel


class Limits(FrozenModel):
    """What a caller may use; None is no limit.

    Attributes:
        concurrency: requests for images in progress at one time.
        images_per_minute: images in any 60 s.
    """

    concurrency: int | None = Field(default=None, ge=1)
    images_per_minute: int | None = Field(default=None, ge=1)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sends a request, as far as the server knows.

    Attributes:
        id: the name of the API key; `anonymous` where none is needed.
        admin: whether the caller may manage the server.
        limits: what the caller may use.
    """

    id: str
    admin: bool
    limits: Limits


ANONYMOUS = Caller("anonymous", admin=True, limits=Limits())
