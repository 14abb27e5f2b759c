"""Where the versions of a served model come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.errors import ModelError, ModelNotFoundError
from models.references import Reference
from models.registry import Registry
from models.version import ModelVersion
from server.errors import UnknownVersionError, VersionRefusedError


@dataclass(frozen=True, slots=True)
class Source:
    """A model in a registry.

    Attributes:
        registry: holds its versions and the pointer to the current one.
        name: of the model.
        follows: when the pointer moves, requests that give no version get the new current one.
        every: a version that is no longer the default stays loaded.
        numbers: versions that stay loaded in any case.
    """

    registry: Registry
    name: str
    follows: bool
    every: bool
    numbers: frozenset[int]

    def keeps(self, number: int) -> bool:
        """Whether a version stays loaded when another one has become the default."""
        return self.every or number in self.numbers

    def open(self, number: int | None) -> ModelVersion:
        """Open a version, by default the current one.

        Raises:
            UnknownVersionError: the registry does not have it, or no version is current.
            VersionRefusedError: its `model.json` or the pointer is not valid.
        """
        try:
            return self.registry.open(self.name, number)
        except ModelNotFoundError as error:
            raise UnknownVersionError(str(error)) from error
        except (ModelError, OSError) as error:
            raise VersionRefusedError(str(error)) from error


def find_sources(references: Sequence[Reference]) -> dict[str, Source]:
    """Return the source of each model by name; a directory outside a registry has none.

    Of several references to a name the first one, which gives the default version, says whether the pointer
    is followed.
    """
    sources = {}
    for first in references:
        if first.directory is None and first.name not in sources:
            same = [each for each in references if each.directory is None and each.name == first.name]
            sources[first.name] = Source(
                registry=first.registry,
                name=first.name,
                follows=first.follows,
                every=any(each.every for each in same),
                numbers=frozenset(each.number for each in same if each.number is not None),
            )
    return sources
