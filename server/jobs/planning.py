"""From what a client asks for to a job's plan."""

from __future__ import annotations

import secrets
from typing import Any

from engines.base import Engine
from server.api.job_schemas import JobRequest
from server.errors import FieldError, InvalidInputError
from server.hosting.catalogue import ServedModel
from server.jobs.plan import JobPlan
from server.sampling import DRAWN_SEEDS, MAX_SEED, resolve
from server.settings import Settings


def make_plan(wanted: JobRequest, model: ServedModel, engine: Engine[Any], settings: Settings) -> JobPlan:
    """Pin everything that a job leaves open: version, defaults, seeds.

    Raises:
        InvalidInputError: over a limit, or nothing that the model can make.
    """
    _check_limits(wanted, settings)
    names = model.version.spec.class_names
    classes = _classes(wanted, model)
    first = classes[0] if classes else 0 if names else None
    seed = secrets.randbelow(DRAWN_SEEDS - wanted.n) if wanted.seed is None else wanted.seed
    return JobPlan(
        model=model.key.name,
        version=model.key.number,
        class_names=names,
        classes=classes,
        n=wanted.n,
        request=resolve(engine, wanted, class_id=first, seed=seed),
        format=wanted.format,
    )


def _classes(wanted: JobRequest, model: ServedModel) -> tuple[int, ...] | None:
    """Return the classes in turn; None for all of them, or for a model without any."""
    if wanted.classes == ["all"]:
        return None
    found = []
    for entry in wanted.classes:
        number, name = (entry, None) if isinstance(entry, int) else (None, entry)
        try:
            class_id = model.class_id(number, name)
        except InvalidInputError as error:
            raise InvalidInputError(
                [FieldError("classes", fault.message) for fault in error.errors]
            ) from None
        if class_id is not None:
            found.append(class_id)
    return tuple(found)


def _check_limits(wanted: JobRequest, settings: Settings) -> None:
    limits = {
        "n": (wanted.n, settings.jobs.max_images),
        "steps": (wanted.steps or 0, settings.max_steps),
        "seed": ((wanted.seed or 0) + wanted.n - 1, MAX_SEED),
    }
    faults = [
        FieldError(field, f"{value} is more than {limit}")
        for field, (value, limit) in limits.items()
        if value > limit
    ]
    if faults:
        raise InvalidInputError(faults)
