"""The models that this server serves, by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engines.base import Engine
from models.version import ModelVersion
from server.errors import FieldError, InvalidInputError, UnknownModelError


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
    def name(self) -> str:
        """The name that requests use."""
        return self.version.spec.name

    @property
    def number(self) -> int:
        """The version's number in its registry; 0 for a directory outside one."""
        return self.version.number or 0

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
            raise _invalid(field, f"{self.name} is unconditional: it has no classes")
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
        return f"GET /models/{self.name}/classes lists all classes"


class Catalogue:
    """Served models by name, in the order of the configuration."""

    def __init__(self, versions: Sequence[ModelVersion]) -> None:
        """Serve these versions.

        Raises:
            ValueError: two of them have the same name, or there is none.
        """
        self._models = {version.spec.name: ServedModel(version) for version in versions}
        if not versions or len(self._models) < len(versions):
            raise ValueError("a server needs at least one model, each with a name of its own")

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    @property
    def default(self) -> ServedModel:
        """The model of requests that name none."""
        return next(iter(self))

    def find(self, name: str | None) -> ServedModel:
        """Return a model by name, the default one for None; raises UnknownModelError."""
        if name is None:
            return self.default
        try:
            return self._models[name]
        except KeyError:
            known = ", ".join(self._models)
            raise UnknownModelError(f"no model is called {name!r}; GET /models lists them: {known}") from None


def _invalid(field: str, message: str) -> InvalidInputError:
    return InvalidInputError([FieldError(field, message)])
