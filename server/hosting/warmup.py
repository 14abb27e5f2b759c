"""Before a model serves: load its engine and check the first image that it makes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
import structlog

from engines.base import Engine, ImageRequest
from engines.settings import EngineSettings
from models.spec import DiffusionDefaults
from models.version import ModelVersion
from server.hosting.catalogue import ServedModel
from server.scheduling.ticket import Image, Ticket
from server.scheduling.worker import Worker

log = structlog.get_logger(__name__)

EngineLoader: TypeAlias = Callable[[ModelVersion, EngineSettings], Engine[Any]]


class GoldenImageError(Exception):
    """A model's first image is not what it should be."""


async def warm_up(model: ServedModel, worker: Worker, load: EngineLoader, settings: EngineSettings) -> None:
    """Load a model's engine, make its golden image and give it to the model, or say why not."""
    started = time.perf_counter()
    try:
        engine = await asyncio.to_thread(load, model.version, settings)
        worker.attach(model.key, engine)
        request = engine.resolve(golden_request(model.version))
        ticket = Ticket(
            model=model.key,
            request=request,
            path=engine.path(request),
            arrival=time.monotonic(),
            deadline=float("inf"),
        )
        worker.submit([ticket])
        check_image(await asyncio.wrap_future(ticket.future), model.version)
    except Exception as error:
        model.reason = str(error) or type(error).__name__
        log.exception("model failed", model=model.key.name, version=model.key.number)
        return
    model.engine = engine
    seconds = round(time.perf_counter() - started, 3)
    log.info("model ready", model=model.key.name, version=model.key.number, seconds=seconds)


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
