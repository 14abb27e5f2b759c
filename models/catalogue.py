"""Published models: where their files lie and what the files do not say about them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from models.errors import ModelNotFoundError
from models.frozen import FrozenModel
from models.spec import Codec, Lineage, ModelSpec, SamplerDefaults

ClassList = Literal["imagenet", "cifar10"]


class HubFile(FrozenModel):
    """A file in a Hugging Face repository.

    Attributes:
        repository: `owner/name`.
        file: its name there.
        revision: the commit it is pinned to. None where none is known: then the first download pins it.
    """

    kind: Literal["hub"] = "hub"
    repository: str
    file: str
    revision: str | None = None

    @property
    def location(self) -> str:
        """The address without a revision, which names the file for good."""
        return f"https://huggingface.co/{self.repository}/{self.file}"

    @property
    def url(self) -> str:
        """The address that a browser downloads it from."""
        return f"https://huggingface.co/{self.repository}/resolve/{self.revision or 'main'}/{self.file}"


class UrlFile(FrozenModel):
    """A file on a plain web server, which has no revisions: the first download pins it by SHA-256."""

    kind: Literal["url"] = "url"
    url: str

    @property
    def file(self) -> str:
        """Its name."""
        return self.url.rsplit("/", 1)[1]

    @property
    def location(self) -> str:
        """The address, which names the file for good."""
        return self.url


RemoteFile = Annotated[HubFile | UrlFile, Field(discriminator="kind")]


class CatalogueEntry(FrozenModel):
    """A published model.

    Attributes:
        name: what it is called in the registry.
        title: one line for people.
        files: one a network: `main`, and where there are any `guide` and `vqvae`.
        classes: whose class names it has; None: unconditional.
        round: self-play round of DDO; 0 is maximum likelihood.
        metrics: published figures by name.

    The rest is as in `ModelSpec`.
    """

    name: str
    title: str
    family: Literal["edm", "edm2", "var"]
    files: dict[str, RemoteFile]
    codec: Codec
    classes: ClassList | None = None
    defaults: SamplerDefaults
    guidance: Literal["none", "guide", "label-dropout"]
    licence: str
    round: int = 0
    metrics: dict[str, float] = Field(default_factory=dict)

    def spec(self) -> ModelSpec:
        """Return the model's spec without networks, files and source."""
        return ModelSpec(
            name=self.name,
            family=self.family,
            networks={},
            codec=self.codec,
            class_names=class_names(self.classes) if self.classes else (),
            defaults=self.defaults,
            guidance=self.guidance,
            licence=self.licence,
            lineage=Lineage(source="", round=self.round, metrics=self.metrics),
        )


@functools.cache
def catalogue() -> Mapping[str, CatalogueEntry]:
    """Return all published models by name, in the catalogue's order."""
    entries = TypeAdapter(list[CatalogueEntry]).validate_json(_data("catalogue.json"))
    return MappingProxyType({entry.name: entry for entry in entries})


def find(name: str) -> CatalogueEntry:
    """Return one published model.

    Raises:
        ModelNotFoundError: the catalogue has no such name.
    """
    try:
        return catalogue()[name]
    except KeyError:
        raise ModelNotFoundError(f"the catalogue has no {name!r}; it has {', '.join(catalogue())}") from None


def class_names(classes: ClassList) -> tuple[str, ...]:
    """Return ImageNet's 1,000 or CIFAR-10's 10 class names; the index is the class id."""
    return tuple(_data(f"{classes}_classes.txt").splitlines())


def _data(name: str) -> str:
    return (resources.files("models") / "data" / name).read_text(encoding="utf-8")
