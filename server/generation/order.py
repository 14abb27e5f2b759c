"""What the command is asked to make, and what it made."""

from __future__ import annotations

from dataclasses import dataclass

from server.api.schemas import Sampling
from server.image_format import ImageFormat


class GenerationError(Exception):
    """The images cannot be made; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Images of one class.

    Attributes:
        class_name: the class by name, or its number in digits; None for a model without classes.
        n: how many.
        seed: of the first one; image i has seed + i. None draws one.
        sampling: model, version and settings.
        format: of the files.
    """

    class_name: str | None
    n: int
    seed: int | None
    sampling: Sampling
    format: ImageFormat


@dataclass(frozen=True, slots=True)
class MadeImage:
    """An image file and its seed."""

    seed: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Made:
    """All images of an order and what they are of; `model` is NAME/VERSION."""

    images: tuple[MadeImage, ...]
    model: str
    class_name: str | None
