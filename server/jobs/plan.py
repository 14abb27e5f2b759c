"""What a job makes: one request for every image, laid out by the image's place."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Literal

from engines.base import ImageRequest
from models.frozen import FrozenModel


class ResultFormat(StrEnum):
    """Files that a job's images can be had in."""

    NPZ = "npz"
    ZIP = "zip"

    @property
    def media_type(self) -> str:
        """The format's media type; an .npz is a zip archive too."""
        return "application/zip" if self is ResultFormat.ZIP else "application/octet-stream"


class JobPlan(FrozenModel):
    """A job, pinned when it is created: nothing that changes later changes its images.

    Image i has seed `request.seed` + i and class `classes[i % len(classes)]`, so classes take turns and no
    class has more than one image more than another.

    Attributes:
        model, version: what makes the images.
        class_names: of the model; index = class.
        classes: classes in turn; None for all, or for a model without classes.
        n: how many images.
        request: of image 0, every default filled in.
        format: of the result.
    """

    model: str
    version: int
    class_names: tuple[str, ...]
    classes: tuple[int, ...] | None
    n: int
    request: ImageRequest
    format: ResultFormat

    @property
    def wanted_classes(self) -> Literal["all"] | tuple[int, ...] | None:
        """The classes in words; None for a model without classes."""
        if not self.class_names:
            return None
        return self.classes or "all"

    def class_id(self, index: int) -> int | None:
        """Return the class of an image; None for a model without classes."""
        if not self.class_names:
            return None
        return self.classes[index % len(self.classes)] if self.classes else index % len(self.class_names)

    def seed(self, index: int) -> int:
        """Return the seed of an image."""
        return self.request.seed + index

    def image_request(self, index: int) -> ImageRequest:
        """Return the request for an image."""
        return dataclasses.replace(self.request, class_id=self.class_id(index), seed=self.seed(index))
