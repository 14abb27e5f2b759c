"""What every engine is to those above it. Nothing here knows torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """One image to be made. None means: the model's default.

    Attributes:
        class_id: index into the model's class names; None for an unconditional model.
        seed: the only source of this image's noise.
        cfg: guidance scale s; 1.0 is no guidance and costs nothing.
        steps, solver: diffusion only.
        temperature, top_k, top_p, var_raw_cfg: VAR only; `var_raw_cfg` is the value that VAR's own
            code calls cfg and excludes `cfg`.
    """

    class_id: int | None
    seed: int
    cfg: float = 1.0
    steps: int | None = None
    solver: str | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    var_raw_cfg: float | None = None


@dataclass(frozen=True, slots=True)
class Leg:
    """A part of a request's way through an engine: calls of one kind.

    Attributes:
        lane: the kind of call: `Row.lane` before each of them, a key of `Engine.costs`.
        calls: how many of them follow each other.
        width: as how many rows the request's row counts in each of them.
    """

    lane: str
    calls: int
    width: int = 1


class Row(Protocol):
    """One image being made. It belongs to the engine that opened it.

    Attributes:
        request: what is made, every default filled in.
        lane: the kind of its next call; rows with equal lanes may share one.
        calls_left: engine calls until the image is there; 0 means finished.
    """

    @property
    def request(self) -> ImageRequest: ...  # noqa: D102

    @property
    def lane(self) -> str: ...  # noqa: D102

    @property
    def calls_left(self) -> int: ...  # noqa: D102


R = TypeVar("R", bound=Row)


class Engine(Protocol[R]):
    """Makes images row by row. Not thread-safe: one thread calls open, step, preview, image and close.

    `resolve` and `path` alone may be called from any thread. At most `capacity` rows are open at once and at
    most `max_rows` go into one call.
    """

    capacity: int
    max_rows: int

    @property
    def nbytes(self) -> int:
        """Bytes that it holds on its device while it serves: weights, and states of `capacity` rows."""
        ...

    @property
    def costs(self) -> Mapping[str, Mapping[int, float]]:
        """Seconds of a call by its number of rows, for each kind of call, as they were once measured here.

        Kinds that were not measured have no numbers of rows.
        """
        ...

    def resolve(self, request: ImageRequest) -> ImageRequest:
        """Fill in the model's defaults and check every field; raises InvalidRequestError."""
        ...

    def path(self, request: ImageRequest) -> Sequence[Leg]:
        """Return the calls that a resolved request needs, in their order."""
        ...

    def open(self, request: ImageRequest) -> R:
        """Draw the noise of a resolved request and give it a place."""
        ...

    def step(self, rows: Sequence[R]) -> None:
        """Advance rows that share a lane by one call."""
        ...

    def preview(self, row: R) -> npt.NDArray[np.uint8] | None:
        """Return what the image looks like so far, (H, W, 3), uint8 RGB, maybe smaller than the image.

        It changes nothing of the row. None: there is nothing to see yet, or no way to show it.
        """
        ...

    def image(self, row: R) -> npt.NDArray[np.uint8]:
        """Return the finished image, (H, W, 3), uint8 RGB."""
        ...

    def close(self, row: R) -> None:
        """Give the row's place back, finished or not."""
        ...
