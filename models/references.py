"""What a reference in the settings means: which versions of which model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.registry import Registry
from models.spec import MODEL_FILE
from models.version import ModelVersion, open_version

ALL = "all"


@dataclass(frozen=True, slots=True)
class Reference:
    """Versions of one model.

    Attributes:
        directory: of the one version that is meant, outside a registry; None: `registry` has it.
        registry: where the model is.
        name: of the model in the registry.
        number: of the one version that is meant; None: the current one.
        every: all other versions are meant too.
    """

    directory: Path | None
    registry: Registry
    name: str
    number: int | None = None
    every: bool = False

    @property
    def follows(self) -> bool:
        """Whether it means another version when the registry's pointer moves."""
        return self.directory is None and self.number is None

    def open(self) -> list[ModelVersion]:
        """Open the versions; of several, the current one first and then the others by number.

        Raises:
            ModelNotFoundError: there is no such model or version, or no version is current.
            CheckpointError: a `model.json` or the pointer to the current version is not valid.
        """
        if self.directory is not None:
            return [open_version(self.directory)]
        first = self.registry.open(self.name, self.number)
        if not self.every:
            return [first]
        others = (number for number in self.registry.versions(self.name) if number != first.number)
        return [first, *(self.registry.open(self.name, number) for number in others)]


def parse_reference(reference: str, registry: Path) -> Reference:
    """Read a reference.

    Args:
        reference: a version's directory; or `NAME` for a model's current version, `NAME/2` for version 2,
            `NAME/all` for every version. `PATH/NAME` in place of `NAME` is a model of the registry at `PATH`.
        registry: where a bare name is looked up.
    """
    if (Path(reference) / MODEL_FILE).is_file():
        return Reference(Path(reference), Registry(registry), Path(reference).name)
    head, _, tail = reference.rpartition("/")
    chosen = tail if head and (tail == ALL or tail.isdecimal()) else None
    place = Path(reference if chosen is None else head)
    models = Registry(registry if place.parent == Path() else place.parent)
    number = int(chosen) if chosen is not None and chosen != ALL else None
    return Reference(None, models, place.name, number, every=chosen == ALL)


def open_reference(reference: str, registry: Path) -> list[ModelVersion]:
    """Open the versions that a reference names; see `parse_reference` and `Reference.open`."""
    return parse_reference(reference, registry).open()
