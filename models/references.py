"""What a reference in the settings means: which versions of which model."""

from __future__ import annotations

from pathlib import Path

from models.registry import Registry
from models.spec import MODEL_FILE
from models.version import ModelVersion, open_version

ALL = "all"


def open_reference(reference: str, registry: Path) -> list[ModelVersion]:
    """Open the versions that a reference names.

    Args:
        reference: a version's directory; or `NAME` for a model's current version, `NAME/2` for version 2,
            `NAME/all` for every version. `PATH/NAME` in place of `NAME` is a model of the registry at `PATH`.
        registry: where a bare name is looked up.

    Returns:
        The versions; of several, the current one first and then the others by number.

    Raises:
        ModelNotFoundError: there is no such model or version, or no version is current.
        CheckpointError: a `model.json` or the pointer to the current version is not valid.
    """
    if (Path(reference) / MODEL_FILE).is_file():
        return [open_version(Path(reference))]
    head, _, tail = reference.rpartition("/")
    chosen = tail if head and (tail == ALL or tail.isdecimal()) else None
    place = Path(reference if chosen is None else head)
    models, name = Registry(registry if place.parent == Path() else place.parent), place.name
    if chosen is not None and chosen != ALL:
        return [models.open(name, int(chosen))]
    current = models.open(name)
    if chosen is None:
        return [current]
    others = (number for number in models.versions(name) if number != current.number)
    return [current, *(models.open(name, number) for number in others)]
