"""Before a version serves: load its engine and check the first image that it makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import PIL.Image

from engines.base import Engine, ImageRequest
from engines.settings import EngineSettings
from models.spec import DiffusionDefaults
from models.version import ModelVersion
from server.scheduling.ticket import Image

EngineLoader: TypeAlias = Callable[[ModelVersion, EngineSettings], Engine[Any]]


class GoldenImageError(Exception):
    """A model's first image is not what it should be."""


def warm_up(
    version: ModelVersion, load: EngineLoader, settings: EngineSettings
) -> tuple[Engine[Any], tuple[int, ...]]:
    """Load a version's engine and make its golden image; nobody else has the engine meanwhile.

    Returns:
        The engine, and the shape of its images, (H, W, 3).

    Raises:
        Exception: whatever `load` or the engine raises.
        GoldenImageError: the image differs too much from the golden one.
    """
    engine = load(version, settings)
    row = engine.open(engine.resolve(golden_request(version)))
    while row.calls_left:
        engine.step([row])
    image = engine.image(row)
    check_image(image, version)
    engine.close(row)
    return engine, image.shape


def golden_request(version: ModelVersion) -> ImageRequest:
    """Return the request for a version's golden image, or for the cheapest image if it has none."""
    golden = version.spec.golden
    if golden is None:
        steps = 1 if isinstance(version.spec.defaults, DiffusionDefaults) else None
        return ImageRequest(class_id=0 if version.spec.class_names else None, seed=0, steps=steps)
    return ImageRequest(class_id=golden.class_id, seed=golden.seed, steps=golden.steps)


def check_image(image: Image, version: ModelVersion) -> None:
    """Compare the image of `golden_request` with the golden image.

    Args:
        image: (H, W, 3) uint8 RGB.
        version: holds the golden image and how far off is allowed, in 8-bit levels.

    Raises:
        GoldenImageError: it differs too much; or there is no golden image, and this one is all one value.
    """
    golden = version.spec.golden
    if golden is None:
        if image.min() == image.max():
            raise GoldenImageError(f"its first image is all {image.min()}")
        return
    with PIL.Image.open(version.path(golden.file)) as file:
        expected = np.asarray(file.convert("RGB"))
    if image.shape != expected.shape:
        raise GoldenImageError(f"its image has shape {image.shape}, its golden image {expected.shape}")
    error = float(np.abs(image.astype(np.int16) - expected).mean())
    if error > golden.max_mean_error:
        raise GoldenImageError(
            f"its image is {error:.2f} levels off its golden image; {golden.max_mean_error:g} are allowed"
        )
