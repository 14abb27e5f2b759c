"""From trained weights to a model version: files, golden image, `model.json`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor

from engines import EngineSettings, load
from engines.base import Engine, ImageRequest
from engines.pixels import Pixels
from engines.sampling import generate
from models.networks import build
from models.registry import Registry
from models.spec import (
    DiffusionDefaults,
    GoldenImage,
    Lineage,
    ModelSpec,
    NetworkSpec,
    PixelCodec,
    SdVaeCodec,
    VarDefaults,
    VqvaeCodec,
)
from models.version import ModelVersion, open_version, seal
from trainer.config import PretrainConfig
from trainer.errors import TrainerError
from trainer.weights import WEIGHTS_FILE, load_weights

GOLDEN = "golden.png"
DRAWS = 8
"""Seeds that a VAR's golden image is chosen from."""

DISTURBANCES = 3
DISTURBANCE = 2.0**-7
"""Deviation by which weights are changed, of their size: twice what rounding to bfloat16 does at most."""

_FAMILIES = {"EDMPrecond": "edm", "Precond": "edm2", "VAR": "var"}
_LATENT_CHANNELS = len(SdVaeCodec().mean)

Weights = Mapping[str, Mapping[str, Tensor] | Path]
"""Of each network by its name: its state dict, or another version's file that holds it."""


def spec_of(config: PretrainConfig, class_names: tuple[str, ...], lineage: Lineage) -> ModelSpec:
    """Return what a run's model is; its tokenizer, if any, is the network `vqvae`.

    Raises:
        TrainerError: the run trains a tokenizer, which is no model of its own, or its tokenizer is missing.
    """
    family = _FAMILIES.get(config.network["class_name"])
    if family is None:
        raise TrainerError("a tokenizer is published with the VAR that is trained on it, not alone")
    networks = {"main": NetworkSpec(init=config.network, weights=WEIGHTS_FILE)}
    guided = bool(config.network.get("label_dropout"))
    codec: PixelCodec | SdVaeCodec | VqvaeCodec
    if config.tokenizer is not None:
        _, init = load_weights(config.tokenizer)
        networks["vqvae"] = NetworkSpec(init=init, weights="vqvae.safetensors")
        codec, guided = VqvaeCodec(), True
    elif config.network["img_channels"] == _LATENT_CHANNELS:
        codec = SdVaeCodec()
    else:
        codec = PixelCodec(fold=config.data.fold)
    return ModelSpec.model_validate(
        {
            "name": config.name,
            "family": family,
            "networks": networks,
            "codec": codec,
            "class_names": class_names,
            "defaults": VarDefaults() if family == "var" else DiffusionDefaults(),
            "guidance": "label-dropout" if guided else "none",
            "licence": config.licence,
            "lineage": lineage,
            "golden": GoldenImage(class_id=config.golden_class, seed=0, file=GOLDEN),
        }
    )


def write_networks(directory: Path, spec: ModelSpec, weights: Weights) -> None:
    """Write the weights of every network of `spec`; parameters are rounded to float16, buffers kept.

    Args:
        directory: of the version.
        spec: what the networks are.
        weights: of every network.
    """
    for name, network in spec.networks.items():
        source = weights[name]
        if isinstance(source, Path):
            shutil.copyfile(source, directory / network.weights)
            continue
        parameters = _parameters(spec, name)
        stored = {
            key: (tensor.half() if key in parameters else tensor).contiguous()
            for key, tensor in source.items()
        }
        save_file(stored, directory / network.weights, metadata={"init": json.dumps(network.init)})


def candidate(directory: Path, spec: ModelSpec, weights: Weights) -> ModelVersion:
    """Make a version without a golden image in `directory`, in place of what is there, to try weights out."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    write_networks(directory, spec, weights)
    return seal(directory, spec.model_copy(update={"golden": None, "files": {}}))


def sample(
    version: ModelVersion,
    requests: list[ImageRequest],
    progress: Progress,
    precision: Literal["float32", "bfloat16"] = "float32",
) -> Pixels:
    """Make images, (N, H, W, 3) uint8.

    Raises:
        EngineError: the engine cannot be built.
    """
    engine: Engine[Any] = load(version, EngineSettings(precision=precision, max_rows=16))
    return np.stack(list(generate(engine, requests, progress)))


def write_version(
    directory: Path,
    *,
    spec: ModelSpec,
    weights: Weights,
    progress: Progress,
) -> ModelSpec:
    """Write weights and golden image into `directory` and return what they are.

    The golden image is made of the rounded weights in float32, so it is what a server must reproduce.
    """
    version = candidate(directory, spec, weights)
    if spec.golden is None:
        return spec
    golden, image = _golden_image(version, spec.golden, progress)
    Image.fromarray(image).save(directory / golden.file)
    return spec.model_copy(update={"golden": golden})


def _golden_image(
    version: ModelVersion, golden: GoldenImage, progress: Progress
) -> tuple[GoldenImage, Pixels]:
    """Make the image that servers check `version` by.

    A VAR token that falls otherwise for a last bit changes all that are drawn after it, and with them the
    image. So of several seeds that one is taken whose image changes least in bfloat16 and when the weights
    are disturbed: other engines and other processors give it too.
    """
    draws = DRAWS if version.spec.family == "var" else 1
    request = ImageRequest(class_id=golden.class_id, seed=golden.seed, steps=golden.steps)
    requests = [replace(request, seed=golden.seed + number) for number in range(draws)]
    images = sample(version, requests, progress)
    if draws == 1:
        return golden, images[0]
    changed = [
        np.abs(disturbed.astype(np.int16) - images).mean(axis=(1, 2, 3))
        for disturbed in _disturbed_images(version, requests, progress)
    ]
    steadiest = int(np.max(changed, axis=0).argmin())
    return golden.model_copy(update={"seed": requests[steadiest].seed}), images[steadiest]


def _disturbed_images(
    version: ModelVersion, requests: list[ImageRequest], progress: Progress
) -> Iterator[Pixels]:
    yield sample(version, requests, progress, "bfloat16")
    files: Weights = {name: version.path(network.weights) for name, network in version.spec.networks.items()}
    network, aside = version.network(), version.directory / "disturbed"
    parameters = dict(network.named_parameters())
    for seed in range(DISTURBANCES):
        noise = torch.Generator().manual_seed(seed)
        weights = {
            key: tensor * (1 + DISTURBANCE * torch.randn(tensor.shape, generator=noise))
            if key in parameters
            else tensor
            for key, tensor in network.state_dict().items()
        }
        yield sample(candidate(aside, version.spec, {**files, "main": weights}), requests, progress)
    shutil.rmtree(aside)


def publish_run(
    config: PretrainConfig,
    run: Path,
    *,
    class_names: tuple[str, ...],
    metrics: Mapping[str, float],
    registry: Path,
    directory: Path | None,
    progress: Progress,
) -> ModelVersion:
    """Publish the first moving average of the finished run in the folder `run`.

    Args:
        config: of the run.
        run: its folder.
        class_names: of the data that it was trained on.
        metrics: recorded in the version's lineage.
        registry: gets a new version, which becomes the current one.
        directory: the version is written there instead, outside a registry.
        progress: where to show how far it is.

    Raises:
        TrainerError: there is no finished run, or not of this configuration.
        ModelError: the version cannot be written.
    """
    network, init = load_weights(run / WEIGHTS_FILE)
    if init != config.network:
        raise TrainerError(f"{run} is not a run of this configuration: its network is {init}")
    lineage = Lineage(
        source=f"maximum likelihood, seed {config.training.seed}, {config.training.images} images",
        metrics=dict(metrics),
    )
    weights: dict[str, Mapping[str, Tensor] | Path] = {"main": network.state_dict()}
    if config.tokenizer is not None:
        weights["vqvae"] = load_weights(config.tokenizer)[0].state_dict()
    spec = spec_of(config, class_names, lineage)
    write = partial(write_version, spec=spec, weights=weights, progress=progress)
    if directory is None:
        return Registry(registry).publish(write, point=True)
    # Written aside, so that a version that is there stays whole until the new one is.
    aside = directory.with_name(f".{directory.name}.{os.getpid()}")
    seal(aside, write(aside))
    shutil.rmtree(directory, ignore_errors=True)
    aside.replace(directory)
    return open_version(directory)


def _parameters(spec: ModelSpec, name: str) -> set[str]:
    tokenizer = spec.networks.get("vqvae") if name == "main" else None
    with torch.device("meta"):
        network = build(spec.networks[name].init, tokenizer.init if tokenizer else None)
    return {key for key, _ in network.named_parameters()}
