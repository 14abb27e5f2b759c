"""Images from an engine in this process."""

from __future__ import annotations

import dataclasses
import secrets

from rich.progress import Progress

from engines.errors import EngineError
from engines.sampling import generate
from models.class_names import find_class
from models.errors import ModelError
from models.references import Reference, parse_reference
from models.version import ModelVersion
from server.encoding import encode
from server.errors import InvalidInputError
from server.generation.order import GenerationError, Made, MadeImage, Order
from server.hosting.version_key import VersionKey
from server.hosting.warmup import EngineLoader, GoldenImageError, warm_up
from server.sampling import DRAWN_SEEDS, resolve
from server.settings import Settings


def make_locally(order: Order, settings: Settings, load: EngineLoader, progress: Progress) -> Made:
    """Make the images of an order.

    Args:
        order: what to make.
        settings: say where models are, and how engines run.
        load: makes an engine of a version.
        progress: shows how far it is.

    Raises:
        GenerationError: no such model or class, or nothing that the model can make.
    """
    wanted = order.sampling
    try:
        version = _reference(wanted.model, wanted.version, settings).open()[0]
        class_id = _class_id(order.class_name, version)
        loading = progress.add_task("loading", total=None)
        engine, _ = warm_up(version, load, settings.engine)
        progress.remove_task(loading)
        seed = secrets.randbelow(DRAWN_SEEDS - order.n) if order.seed is None else order.seed
        first = resolve(engine, wanted, class_id=class_id, seed=seed)
        requests = [dataclasses.replace(first, seed=seed + index) for index in range(order.n)]
        images = tuple(
            MadeImage(request.seed, encode(image, order.format))
            for request, image in zip(requests, generate(engine, requests, progress), strict=True)
        )
    except (ModelError, EngineError, GoldenImageError, InvalidInputError) as error:
        raise GenerationError(str(error)) from error
    spec = version.spec
    name = None if class_id is None else spec.class_names[class_id]
    return Made(images, str(VersionKey(spec.name, version.number or 0)), name)


def _reference(model: str | None, number: int | None, settings: Settings) -> Reference:
    """Return the one version that is meant; the models that are served go by their names alone."""
    served = [parse_reference(name, settings.registry) for name in settings.models]
    named = [reference for reference in served if model in (None, reference.name)]
    found = named[0] if named else parse_reference(model or "", settings.registry)
    if number is not None and found.directory is not None:
        raise GenerationError(f"{found.directory} is one version; leave out the other")
    return dataclasses.replace(found, number=found.number if number is None else number, every=False)


def _class_id(class_name: str | None, version: ModelVersion) -> int | None:
    names = version.spec.class_names
    if class_name is None:
        if names:
            raise GenerationError(f"{version.spec.name} makes images of a class: add --class")
        return None
    if not names:
        raise GenerationError(f"{version.spec.name} is unconditional: leave out --class")
    return find_class(class_name, names)
