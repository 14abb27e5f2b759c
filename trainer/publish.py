"""From a run's moving average to a model version: weights, golden image, `model.json`."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import Progress
from safetensors.torch import save_file
from torch import nn

from engines.backends.torch_backend import TorchBackend
from engines.base import ImageRequest
from engines.diffusion import DiffusionEngine
from engines.diffusion_step import DiffusionStep
from engines.pixels import PixelDecoder, Pixels
from models import build
from models.registry import Registry
from models.spec import (
    DiffusionDefaults,
    GoldenImage,
    Lineage,
    ModelSpec,
    NetworkSpec,
    PixelCodec,
)
from models.version import ModelVersion, seal
from trainer.config import PretrainConfig
from trainer.data.dataset import LabelledImages
from trainer.errors import TrainerError
from trainer.evaluation.evaluate import Evaluation
from trainer.sampling import generate
from trainer.training.checkpoint import load_state

WEIGHTS, GOLDEN = "weights.safetensors", "golden.png"


def sample(
    network: nn.Module, config: PretrainConfig, class_ids: list[int], seed: int, progress: Progress
) -> Pixels:
    """Make an image of each class with the model's default sampler, in float32.

    Args:
        network: the denoiser; it is not changed.
        config: of its run.
        class_ids: in any order.
        seed: of the first image; each further one adds 1.
        progress: where to show how far it is.

    Returns:
        (N, H, W, 3) uint8.
    """
    own = copy.deepcopy(network)
    side, channels = config.network["img_resolution"], config.network["img_channels"]
    engine = DiffusionEngine(
        DiffusionStep(own, None),
        TorchBackend(torch.device("cpu"), torch.float32),
        PixelDecoder(PixelCodec(fold=config.data.fold)),
        shape=(channels, side, side),
        defaults=DiffusionDefaults(),
        num_classes=config.network["label_dim"],
        max_rows=16,
    )
    requests = [ImageRequest(class_id=class_id, seed=seed + i) for i, class_id in enumerate(class_ids)]
    return np.stack(list(generate(engine, requests, progress)))


def write_version(
    directory: Path,
    network: nn.Module,
    config: PretrainConfig,
    *,
    class_names: tuple[str, ...],
    lineage: Lineage,
    progress: Progress,
) -> ModelSpec:
    """Write weights (float16) and golden image into `directory` and return what they are.

    The golden image is made with the rounded weights in float32, so it is what a server must reproduce.
    """
    weights = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, directory / WEIGHTS)
    rounded = copy.deepcopy(network)
    rounded.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    golden = GoldenImage(class_id=config.golden_class, seed=0, file=GOLDEN)
    image = sample(rounded, config, [golden.class_id], golden.seed, progress)[0]
    Image.fromarray(image).save(directory / GOLDEN)
    return ModelSpec(
        name=config.name,
        family="edm",
        networks={"main": NetworkSpec(init=config.network, weights=WEIGHTS)},
        codec=PixelCodec(fold=config.data.fold),
        class_names=class_names,
        defaults=DiffusionDefaults(),
        guidance="label-dropout" if config.network.get("label_dropout") else "none",
        licence=config.licence,
        lineage=lineage,
        golden=golden,
    )


def publish_run(
    config: PretrainConfig,
    run: Path,
    *,
    registry: Path,
    directory: Path | None,
    figures: Evaluation | None,
    progress: Progress,
) -> ModelVersion:
    """Publish the moving average of the run in the folder `run`.

    Args:
        config: of the run.
        run: its folder.
        registry: gets a new version, which becomes the current one.
        directory: the version is written there instead, outside a registry.
        figures: recorded as metrics.
        progress: where to show how far it is.

    Raises:
        TrainerError: there is no run, or not of this configuration.
        ModelError: the version cannot be written.
    """
    state = load_state(run)
    if state is None:
        raise TrainerError(f"{run} holds no run: train one with `python -m trainer pretrain`")
    network = build(config.network)
    try:
        network.load_state_dict(state["average"])
    except RuntimeError as error:
        raise TrainerError(f"{run} is not a run of this configuration: {error}") from error
    data = LabelledImages.load(config.data)
    metrics = {"training_images": float(state["seen"])}
    if figures is not None:
        metrics |= {
            f"frechet_distance_{figures.extractor}": figures.generated.frechet_distance,
            f"centroid_accuracy_{figures.extractor}": figures.generated.centroid_accuracy,
        }
    write = partial(
        write_version,
        network=network,
        config=config,
        class_names=data.class_names,
        lineage=Lineage(source=f"maximum likelihood, seed {config.seed}", metrics=metrics),
        progress=progress,
    )
    if directory is None:
        return Registry(registry).publish(write, point=True)
    directory.mkdir(parents=True, exist_ok=True)
    return seal(directory, write(directory))
