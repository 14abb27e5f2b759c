"""Which images a model is judged by."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from pydantic import Field

from engines.base import Engine, ImageRequest
from models.frozen import FrozenModel
from trainer.evaluation.features import Labels

_OF_THE_SET = {"images", "seed"}


class SamplingPlan(FrozenModel):
    """Which images to generate, and how. None means: the model's default.

    Attributes:
        images: how many; the classes take turns, so they are balanced.
        seed: of the first image; each further one adds 1.
        steps, solver: diffusion only.
        cfg: guidance scale; 1 is none.
        temperature, top_k, top_p, var_raw_cfg: VAR only, see `ImageRequest`.
    """

    images: int = Field(default=10_000, ge=2)
    seed: int = Field(default=0, ge=0)
    steps: int | None = None
    solver: str | None = None
    cfg: float = 1.0
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    var_raw_cfg: float | None = None

    def request(self, number: int, classes: int) -> ImageRequest:
        """Return the request of image `number`, of a model of so many classes, 0 for an unconditional one."""
        return ImageRequest(
            class_id=number % classes if classes else None,
            seed=self.seed + number,
            **self.model_dump(exclude=_OF_THE_SET),
        )

    def requests(self, classes: int) -> list[ImageRequest]:
        """Return all requests in order."""
        return [self.request(number, classes) for number in range(self.images)]

    def labels(self, classes: int) -> Labels | None:
        """Return the class of each image, (N,), None for an unconditional model."""
        return np.arange(self.images) % classes if classes else None

    def resolved(self, engine: Engine[Any], classes: int) -> Self:
        """Return the plan with the model's defaults filled in.

        Raises:
            InvalidRequestError: the model cannot make such images.
        """
        request = engine.resolve(self.request(0, classes))
        settings = type(self).model_fields.keys() - _OF_THE_SET
        return self.model_copy(update={name: getattr(request, name) for name in settings})
