"""Versions in the registry: where rounds start from, and what they publish."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.progress import Progress

from models.registry import Registry
from models.spec import MODEL_FILE, GoldenImage, Lineage, ModelSpec
from models.version import ModelVersion, open_version
from trainer.errors import TrainerError
from trainer.evaluation.evaluate import JudgedModel
from trainer.versions import GOLDEN, write_version


def label_of(version: ModelVersion) -> str:
    """Return `NAME/NUMBER` of a version in a registry."""
    return f"{version.spec.name}/{version.number:04d}"


def open_labelled(registry: Registry, label: str) -> ModelVersion:
    """Open `NAME/NUMBER`, or the current version of `NAME`.

    Raises:
        TrainerError: the number is none.
        ModelNotFoundError: there is no such version.
    """
    name, slash, number = label.partition("/")
    if slash and not number.isdecimal():
        raise TrainerError(f"{label!r} is neither the directory of a version nor NAME or NAME/NUMBER")
    return registry.open(name, int(number) if slash else None)


def find_parent(registry: Registry, parent: str) -> ModelVersion:
    """Open the version that a run starts from: a directory, the current one of a model's, or the registry's.

    Raises:
        TrainerError: `parent` is neither.
        ModelError: there is none, or it is damaged.
    """
    directory = Path(parent)
    if (directory / MODEL_FILE).is_file():
        return open_version(directory)
    if (directory / "versions").is_dir():
        return open_version(Registry(directory.parent).open(directory.name).directory)
    return open_labelled(registry, parent)


def check_writable(registry: Registry) -> None:
    """Raise TrainerError where nothing could be published: better before the training than after it."""
    try:
        registry.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=registry.root):
            pass
    except OSError as error:
        raise TrainerError(f"cannot write to the registry {registry.root}: {error.strerror}") from error


def adopt(registry: Registry, version: ModelVersion) -> ModelVersion:
    """Return a version as the registry has it; one from outside is copied, so that it cannot change any more.

    Raises:
        TrainerError: the registry cannot be written.
        ModelError: the version is damaged.
    """
    if version.number is not None:
        return version

    def write(directory: Path) -> ModelSpec:
        version.verify()
        _copy(version, directory, version.spec.files)
        return version.spec

    point = registry.current(version.spec.name) is None
    return publish_once(registry, version.spec, JudgedModel.of(version), write, point=point)


def publish_once(
    registry: Registry,
    spec: ModelSpec,
    model: JudgedModel,
    write: Callable[[Path], ModelSpec],
    *,
    point: bool,
) -> ModelVersion:
    """Publish a version, unless the registry has the same weights with the same lineage.

    So a process that was killed when it had just published finds its version again.

    Args:
        registry: where.
        spec: name and lineage of the version.
        model: its weights.
        write: see `Registry.publish`.
        point: make it the current one.

    Raises:
        TrainerError: the registry cannot be written.
    """
    try:
        for number in registry.versions(spec.name):
            found = registry.open(spec.name, number)
            if found.spec.lineage == spec.lineage and JudgedModel.of(found) == model:
                break
        else:
            found = registry.publish(write)
        if point and found.number is not None:
            registry.point(spec.name, found.number)
    except OSError as error:
        raise TrainerError(f"cannot publish to the registry {registry.root}: {error}") from error
    return found


def trial_spec(reference: ModelVersion, name: str) -> ModelSpec:
    """Return what a version of the reference's kind is while it is tried out."""
    lineage = Lineage(source="a run under way", parent=label_of(reference))
    return reference.spec.model_copy(update={"name": name, "lineage": lineage})


def publish_best(
    registry: Registry, best: ModelVersion, reference: ModelVersion, lineage: Lineage, progress: Progress
) -> ModelVersion:
    """Publish a round's best version with a golden image, and make it the current one.

    Args:
        registry: where.
        best: the version with its weights.
        reference: the version that it comes from; its other files, such as attributions, go along.
        lineage: of the new version.
        progress: where to show how far it is.

    Raises:
        TrainerError: the registry cannot be written.
    """
    golden = reference.spec.golden
    if golden is None and reference.spec.class_names:
        golden = GoldenImage(class_id=0, seed=0, file=GOLDEN)
    spec = best.spec.model_copy(update={"lineage": lineage, "golden": golden})
    written = {network.weights for network in spec.networks.values()} | ({golden.file} if golden else set())

    def write(directory: Path) -> ModelSpec:
        weights = {name: best.path(network.weights) for name, network in spec.networks.items()}
        complete = write_version(directory, spec=spec, weights=weights, progress=progress)
        _copy(reference, directory, reference.spec.files.keys() - written)
        return complete

    return publish_once(registry, spec, JudgedModel.of(best), write, point=True)


def _copy(version: ModelVersion, directory: Path, files: Iterable[str]) -> None:
    for file in files:
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(version.path(file), directory / file)
