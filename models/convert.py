"""From checkpoint files to a published version."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.catalogue import CatalogueEntry
from models.checkpoints import Checkpoint, check_finite, check_schema, load
from models.checkpoints.var import PATCH_NUMS, is_vqvae, vqvae_init
from models.errors import CheckpointError, ModelError, ModelNotFoundError
from models.networks import build
from models.registry import Registry
from models.spec import (
    NAME_PATTERN,
    Codec,
    DiffusionDefaults,
    Lineage,
    ModelSpec,
    NetworkSpec,
    PixelCodec,
    SdVaeCodec,
    VarDefaults,
    VqvaeCodec,
)
from models.version import ModelVersion, record

Family = Literal["edm", "edm2", "var"]


def load_networks(files: Mapping[str, Path], init: Mapping[str, Any] | None = None) -> dict[str, Checkpoint]:
    """Read the checkpoint files of one model.

    Args:
        files: by network: `main`, and where there are any `guide` and `vqvae`.
        init: constructor arguments of `main`, for a file that does not tell them.

    Returns:
        A checkpoint a network, each with constructor arguments.

    Raises:
        CheckpointError: a file cannot be used, or does not tell its constructor arguments.
    """
    networks = {name: load(path) for name, path in files.items()}
    if init is not None:
        networks["main"] = replace(networks["main"], init=dict(init))
    for name, network in networks.items():
        if is_vqvae(network.state):
            patch_nums = (networks["main"].init or {}).get("patch_nums", PATCH_NUMS)
            networks[name] = replace(network, init=vqvae_init(network.state, patch_nums))
        elif network.init is None:
            raise CheckpointError(
                f"{network.source.name} does not tell the network's constructor arguments; give them as JSON"
            )
    return networks


def describe(
    name: str, networks: Mapping[str, Checkpoint], class_names: Sequence[str] = (), licence: str = "unknown"
) -> ModelSpec:
    """Return the spec, without networks and source, of a model that no catalogue knows.

    Args:
        name: the model's name.
        networks: its checkpoints, as `load_networks` returns them.
        class_names: index = class id; where none are given the classes are numbered.
        licence: of the weights.

    Raises:
        CheckpointError: `main` is of no known family.
        ModelError: `name` has characters that names do not have.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise ModelError(
            f"{name!r} is no name for a model: small letters, digits, dots, hyphens, underscores"
        )
    init = _init(networks["main"])
    family = _family(networks["main"])
    codec: Codec = PixelCodec()
    if family == "var":
        codec = VqvaeCodec()
    elif family == "edm2" and init["img_channels"] == len(SdVaeCodec().mean):
        codec = SdVaeCodec()
    return ModelSpec(
        name=name,
        family=family,
        networks={},
        codec=codec,
        class_names=tuple(class_names) or tuple(f"class {i}" for i in range(_classes(init))),
        defaults=VarDefaults()
        if family == "var"
        else DiffusionDefaults(steps=32 if family == "edm2" else 18),
        guidance="label-dropout" if family == "var" else "guide" if "guide" in networks else "none",
        licence=licence,
        lineage=Lineage(source=""),
    )


def publish(
    spec: ModelSpec,
    networks: Mapping[str, Checkpoint],
    registry: Registry,
    *,
    source: str,
    allow_non_finite: bool = False,
) -> ModelVersion:
    """Check the networks, publish them as a new version in the files' own dtypes, and make it current.

    Args:
        spec: the model without networks and source.
        networks: its checkpoints.
        registry: where to publish.
        source: where the files come from, for the version's lineage.
        allow_non_finite: publish NaN or infinite weights with a warning.

    Raises:
        SchemaMismatchError: tensors that are not those of the network.
        NonFiniteWeightsError: NaN or infinite weights, unless allowed.
        CheckpointError: another family or number of classes than the spec's.
    """
    _check_spec(spec, networks)
    for checkpoint in networks.values():
        with torch.device("meta"):
            network = build(_init(checkpoint))
        check_schema(network, checkpoint.state)
        check_finite(network, checkpoint.state, allow_non_finite=allow_non_finite)

    def write(directory: Path) -> ModelSpec:
        written = {}
        for name, checkpoint in networks.items():
            file = "weights.safetensors" if name == "main" else f"{name}.safetensors"
            save_file(_separate(checkpoint.state), directory / file)
            written[name] = NetworkSpec(init=_init(checkpoint), weights=file)
        lineage = spec.lineage.model_copy(update={"source": source})
        return spec.model_copy(update={"networks": written, "lineage": lineage})

    return registry.publish(write, point=True)


def find_files(main: Path, entry: CatalogueEntry, given: Mapping[str, Path]) -> dict[str, Path]:
    """Find an entry's files: `main`, those given, and the rest beside `main` under their published names.

    Raises:
        ModelNotFoundError: a file is not there; says where it is published.
    """
    found = {"main": main}
    for name, remote in entry.files.items():
        if name == "main":
            continue
        path = given.get(name, main.parent / remote.file)
        if not path.is_file():
            raise ModelNotFoundError(f"{entry.name} also needs {path}: download it from {remote.url}")
        found[name] = path
    return found


def provenance(origins: Iterable[tuple[str, Path]]) -> str:
    """Describe files by their origins, a name or an address each, and SHA-256, for a version's lineage."""
    return "; ".join(f"{origin} sha256:{record(path).sha256}" for origin, path in origins)


def _check_spec(spec: ModelSpec, networks: Mapping[str, Checkpoint]) -> None:
    family, classes = _family(networks["main"]), _classes(_init(networks["main"]))
    if family != spec.family:
        raise CheckpointError(
            f"{networks['main'].source.name} is a model of the family {family}, not {spec.family}"
        )
    if classes != len(spec.class_names):
        raise CheckpointError(
            f"{networks['main'].source.name} has {classes} classes, {spec.name} has {len(spec.class_names)}"
        )
    needed = [spec.codec.network] if isinstance(spec.codec, VqvaeCodec) else []
    needed += ["guide"] if spec.guidance == "guide" else []
    missing = [name for name in needed if name not in networks]
    if missing:
        raise CheckpointError(f"{spec.name} also needs the file of its network {missing[0]!r}")


def _init(checkpoint: Checkpoint) -> dict[str, Any]:
    if checkpoint.init is None:
        raise CheckpointError(f"{checkpoint.source.name} comes without constructor arguments")
    return checkpoint.init


def _family(main: Checkpoint) -> Family:
    families: dict[Any, Family] = {"EDMPrecond": "edm", "Precond": "edm2", "VAR": "var"}
    name = _init(main).get("class_name")
    if name not in families:
        raise CheckpointError(f"{main.source.name} is not a model that makes images: its class is {name}")
    return families[name]


def _classes(init: Mapping[str, Any]) -> int:
    return int(init.get("num_classes", init.get("label_dim", 0)))


def _separate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy the tensors that share memory or are not contiguous, which safetensors cannot hold."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in state.items():
        storage = tensor.untyped_storage()
        alone = storage.data_ptr() not in seen and storage.nbytes() == tensor.nbytes
        separate[name] = tensor.contiguous() if alone else tensor.clone(memory_format=torch.contiguous_format)
        seen.add(storage.data_ptr())
    return separate
