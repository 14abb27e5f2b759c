"""Models by the one name that OpenAI's clients have for them: NAME or NAME/VERSION."""

from __future__ import annotations

from collections.abc import Iterator

from server.hosting.catalogue import Catalogue, ServedModel
from server.openai.schemas import ModelCard


def split_id(model: str) -> tuple[str, int | None]:
    """Return the name and the number of `NAME/VERSION`; None: no version is named."""
    name, slash, number = model.rpartition("/")
    if slash and number.isascii() and number.isdecimal():
        return name, int(number)
    return model, None


def find_model(model: str, catalogue: Catalogue) -> ServedModel:
    """Return what an id names.

    Raises:
        UnknownModelError: no such model is served.
        UnknownVersionError: no such version of it is served.
    """
    return catalogue.find(*split_id(model))


def cards(catalogue: Catalogue) -> Iterator[ModelCard]:
    """Yield every id that names something: each model's, then those of its versions."""
    for default in catalogue.default_versions:
        yield card(default.key.name, default)
        for model in catalogue.versions(default.key.name):
            if model.key.number:
                yield card(str(model.key), model)


def card(model_id: str, model: ServedModel) -> ModelCard:
    """Return the card of a served version under one of its ids."""
    return ModelCard(id=model_id, created=_published(model), owned_by=model.version.spec.family)


def _published(model: ServedModel) -> int:
    try:
        return int(model.version.directory.stat().st_mtime)
    except OSError:
        return 0
