"""The models that this server serves, by name and version."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from engines.base import Engine
from models.class_names import UnknownClassError, find_class
from models.version import ModelVersion
from server.errors import FieldError, InvalidInputError, UnknownModelError, UnknownVersionError
from server.hosting.version_key import VersionKey


class ModelState(StrEnum):
    """What a served version is doing."""

    STARTING = "starting"  # its turn to be loaded at the server's start has not come, or not ended
    UNLOADED = "unloaded"  # the first request loads it
    LOADING = "loading"
    READY = "ready"
    LEAVING = "leaving"  # its last rows are being made
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class ServedModel:
    """A model version and, once it is loaded and checked, its engine.

    Attributes:
        version: the published version.
        engine: there exactly while the state is `READY`.
        state: what it is doing.
        reason: why it is not ready, while it is not.
        nbytes: memory of its engine, in bytes; before the first load the size of its weights' files.
        last_used: seconds on the host's clock at the last request.
        wanted: requests that wait for its engine; it does not leave before they have it.
        image_shape: (H, W, 3) of its images, once it was loaded.
    """

    version: ModelVersion
    engine: Engine[Any] | None = None
    state: ModelState = ModelState.STARTING
    reason: str = "loading"
    nbytes: int = 0
    last_used: float = 0.0
    wanted: int = 0
    image_shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Guess the engine's memory."""
        spec = self.version.spec
        self.nbytes = sum(spec.files[network.weights].size for network in spec.networks.values())

    @property
    def failed(self) -> bool:
        """Whether it was tried and cannot be served."""
        return self.state is ModelState.FAILED

    @property
    def held_nbytes(self) -> int:
        """Bytes of memory that its engine holds now."""
        return self.nbytes if self.state in (ModelState.READY, ModelState.LEAVING) else 0

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
        try:
            return find_class(class_name, self.version.spec.class_names)
        except UnknownClassError as error:
            raise _invalid("class_name", f"{error} {self._listing}") from None

    @property
    def _listing(self) -> str:
        return f"GET /models/{self.key.name}/classes?version={self.key.number} lists all classes"


class Catalogue:
    """Served versions, those of the configuration first and in its order; a name's first is its default."""

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
        # The default versions of a name, latest last; the ones before it are for `step_back`.
        self._defaults: dict[str, list[ServedModel]] = {}
        for model in models:
            self._defaults.setdefault(model.key.name, [model])

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    @property
    def default(self) -> ServedModel:
        """The version of requests that name no model."""
        return next(iter(self._defaults.values()))[-1]

    @property
    def default_versions(self) -> list[ServedModel]:
        """The default version of every model."""
        return [defaults[-1] for defaults in self._defaults.values()]

    def add(self, version: ModelVersion) -> ServedModel:
        """Know one more version of a model that is served; it is not loaded."""
        model = ServedModel(version, state=ModelState.UNLOADED, reason="not loaded")
        self._models[model.key] = model
        return model

    def remove(self, model: ServedModel) -> None:
        """Forget a version that is not the default one."""
        del self._models[model.key]
        defaults = self._defaults[model.key.name]
        defaults[:] = [each for each in defaults if each is not model]

    def make_default(self, model: ServedModel) -> None:
        """Give requests that name the model alone this version from now on."""
        defaults = self._defaults[model.key.name]
        defaults[:] = [*(each for each in defaults if each is not model), model]

    def earlier(self, name: str) -> ServedModel | None:
        """Return the version that was a model's default before the present one."""
        return self._defaults[name][-2] if len(self._defaults[name]) > 1 else None

    def step_back(self, name: str) -> None:
        """Make the earlier default version the default one again."""
        self._defaults[name].pop()

    def versions(self, name: str) -> list[ServedModel]:
        """Return all known versions of a model, oldest first."""
        return sorted((model for model in self if model.key.name == name), key=lambda model: model.key)

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
        if name not in self._defaults:
            known = ", ".join(self._defaults)
            raise UnknownModelError(f"no model is called {name!r}; GET /models lists them: {known}")
        if number is None:
            return self._defaults[name][-1]
        model = self._models.get(VersionKey(name, number))
        if model is None:
            known = ", ".join(str(each.key.number) for each in self.versions(name))
            raise UnknownVersionError(f"{name} has no version {number} here; served are: {known}")
        return model


def _invalid(field: str, message: str) -> InvalidInputError:
    return InvalidInputError([FieldError(field, message)])
