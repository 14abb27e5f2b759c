"""What must fit together before a run starts."""

from __future__ import annotations

from typing import Any, cast

import torch

from models.networks import build
from models.networks.vqvae import VQVAE
from models.spec import ModelSpec, SdVaeCodec
from trainer.data.source import TrainingImages
from trainer.errors import TrainerError
from trainer.objectives.config import Likelihood, Uncertainty
from trainer.rounds.config import DiffusionDdoMethod, Method, NeonMethod, RoundsConfig, VarDdoMethod
from trainer.rounds.records import RunRecord


def check_parent(config: RoundsConfig, spec: ModelSpec, images: TrainingImages) -> None:
    """Compare the model to start from with what is to be done with it.

    Raises:
        TrainerError: the method is not for its family, or the images are not of its shape, classes or kind.
    """
    families = _families(config.method)
    if spec.family not in families:
        raise TrainerError(
            f"{spec.name} is of the family {spec.family}; this method is for {' and '.join(families)}"
        )
    if config.pool.contents == "tokens" and spec.family != "var":
        raise TrainerError(f'{spec.name} has no tokens: pool.contents = "tokens" is for VAR')
    shape = _shape(spec)
    if images.shape != shape:
        raise TrainerError(
            f"{config.data.path} has images of (channels, height, width) {images.shape} after folding by "
            f"{config.data.fold}, {spec.name} makes {shape}"
        )
    if spec.class_names and len(spec.class_names) != len(images.class_names):
        raise TrainerError(
            f"{config.data.path} has {len(images.class_names)} classes, {spec.name} {len(spec.class_names)}"
        )
    if isinstance(spec.codec, SdVaeCodec) and config.evaluation.reference is None:
        raise TrainerError(
            "latents are no images to compare with: name as evaluation.reference statistics of the images "
            "that they were made from; `python -m trainer statistics` makes them"
        )


def check_same(record: RunRecord, config: RoundsConfig) -> None:
    """Raise TrainerError where a run goes on with another configuration; more rounds are welcome."""
    before, now = (_flat(each.model_dump(mode="json")) for each in (record.config, config))
    changed = [
        f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]
    if config.rounds > record.config.rounds:
        changed = [each for each in changed if not each.startswith("rounds ")]
    if changed:
        raise TrainerError(
            f"the folder holds a run of another configuration: {'; '.join(changed)}. Start the new one in "
            "another folder; a run that is resumed may only be given more rounds."
        )


def _families(method: Method) -> tuple[str, ...]:
    match method:
        case VarDdoMethod() | NeonMethod(objective=Likelihood()):
            return ("var",)
        case NeonMethod(objective=Uncertainty()):
            return ("edm2",)
        case DiffusionDdoMethod() | NeonMethod():
            return ("edm", "edm2")


def _shape(spec: ModelSpec) -> tuple[int, int, int]:
    if spec.family == "var":
        with torch.device("meta"):
            side = cast(VQVAE, build(spec.networks["vqvae"].init)).resolution
        return 3, side, side
    init = spec.networks["main"].init
    return init["img_channels"], init["img_resolution"], init["img_resolution"]


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return nested tables as one, with dotted names."""
    if not isinstance(value, dict):
        return {name: value}
    parts = (_flat(inner, f"{name}.{key}" if name else key) for key, inner in value.items())
    return {key: inner for part in parts for key, inner in part.items()}
