"""The models that this server serves, by name and version."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engines.base import Engine
from models.version import ModelVersion
from server.errors import FieldError, InvalidInputError, UnknownModelError, UnknownVersionError
from server.hosting.version_key import VersionKey


@dataclass(slots=True, eq=False)
class ServedModel:
    """A model version and, once it is loaded and checked, its engine.

    Attributes:
        version: the published version.
        engine: None until the model is ready.
        reason: why it is not ready, while it is not.
    """

    version: ModelVersion
    engine: Engine[Any] | None = None
    reason: str = "loading"

    @property
    def key(self) -> VersionKey:
        """The name and number that requests use."""
        return VersionKey(self.version.spec.name, self.version.number or 0)

    def class_id(self, class_id: int | None, class_name: str | None) -> int | None:
        """Return the class that a request means; None for an unconditional model.

        Raises:
            InvalidInputError: no class, two, one out of range, or a name that no class has.
        """
        names = self.version.spec.class_names
        if not names:
            if class_id is None and class_name is None:
                return None
            field = "class_id" if class_name is None else "class_name"
            raise _invalid(field, f"{self.key.name} is unconditional: it has no classes")
        if class_id is not None and class_name is not None:
            raise _invalid("class_name", "give class_id or class_name, not both")
        if class_name is not None:
            return self._named(class_name)
        if class_id is None:
            raise _invalid("class_id", f"is needed (or class_name); {self._listing}")
        if class_id >= len(names):
            raise _invalid("class_id", f"{class_id} is not 0 to {len(names) - 1}; {self._listing}")
        return class_id

    def _named(self, class_name: str) -> int:
        names = self.version.spec.class_names
        lowered = [name.lower() for name in names]
        if class_name in names:
            return names.index(class_name)
        if class_name.lower() in lowered:
            return lowered.index(class_name.lower())
        close = difflib.get_close_matches(class_name.lower(), lowered)
        similar = ", ".join(repr(names[lowered.index(name)]) for name in close)
        hint = f"did you mean {similar}? " if close else ""
        raise _invalid("class_name", f"no class is called {class_name!r}; {hint}{self._listing}")

    @property
    def _listing(self) -> str:
        return f"GET /models/{self.key.name}/classes?version={self.key.number} lists all classes"


class Catalogue:
    """Served versions in the order of the configuration; a name's first one is its default version."""

    def __init__(self, versions: Sequence[ModelVersion]) -> None:
        """Serve these versions.

        Raises:
            ValueError: one of them is there twice, or there is none.
        """
        models = [ServedModel(version) for version in versions]
        self._models = {model.key: model for model in models}
        if not models:
            raise ValueError("a server needs at least one model")
        if len(self._models) < len(models):
            twice = sorted({str(model.key) for model in models if self._models[model.key] is not model})
            raise ValueError(f"each version can be served once only; more than once: {', '.join(twice)}")

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    @property
    def default(self) -> ServedModel:
        """The model of requests that name none."""
        return next(iter(self))

    def find(self, name: str | None = None, number: int | None = None) -> ServedModel:
        """Return a version of a model.

        Args:
            name: of the model; None means the default one.
            number: of the version; None means the model's default one.

        Raises:
            UnknownModelError: no such model is served.
            UnknownVersionError: no such version of it is served.
        """
        name = self.default.key.name if name is None else name
        numbers = [key.number for key in self._models if key.name == name]
        if not numbers:
            known = ", ".join(dict.fromkeys(key.name for key in self._models))
            raise UnknownModelError(f"no model is called {name!r}; GET /models lists them: {known}")
        if number is None:
            number = numbers[0]
        if number not in numbers:
            known = ", ".join(map(str, sorted(numbers)))
            raise UnknownVersionError(f"{name} has no version {number} here; served are: {known}")
        return self._models[VersionKey(name, number)]


def _invalid(field: str, message: str) -> InvalidInputError:
    return InvalidInputError([FieldError(field, message)])
