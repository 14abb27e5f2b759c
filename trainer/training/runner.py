"""A maximum-likelihood run as a person watches it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from torch import Tensor

from engines.base import ImageRequest
from engines.pixels import to_pixels
from models.networks import build
from models.networks.vqvae import VQVAE
from models.spec import Lineage
from trainer.config import PretrainConfig
from trainer.data.source import TrainingImages
from trainer.errors import TrainerError
from trainer.grid import contact_sheet
from trainer.training.pretrain import pretraining
from trainer.training.processes import Processes
from trainer.training.record import Record
from trainer.versions import candidate, sample, spec_of
from trainer.weights import WEIGHTS_FILE, load_weights, save_weights

GRID_IMAGES = 64


def watch(config: PretrainConfig, directory: Path, processes: Processes, progress: Progress) -> None:
    """Train to the end in `directory`.

    It holds `state.pt` and what `Record` writes; at the end also `weights.safetensors`, the first moving
    average. A run that was killed goes on where its state ends.

    Raises:
        TrainerError: see `pretraining` and `Loop.run`; or the folder cannot be written.
    """
    loop, images = pretraining(config, directory, processes, progress)
    average = config.training.averages[0].name
    task = progress.add_task(config.name, total=config.training.images, completed=loop.seen)
    drawn = loop.seen // config.grid_images
    try:
        with Record(directory, loop.seen) if processes.leads else nullcontext() as record:
            for report in loop.run():
                shown: dict[str, Any] = {"loss": report.values["loss"], "images/s": report.rate}
                progress.update(task, completed=report.images, **shown)
                if record is not None:
                    record.scalars(report.images, {**report.values, "images_per_second": report.rate})
                if report.images // config.grid_images > drawn:
                    drawn = report.images // config.grid_images
                    weights = loop.weights(average)
                    if record is not None:
                        record.grid(report.images, draw_grid(config, weights, images))
        weights = loop.weights(average)
        if processes.leads:
            save_weights(directory / WEIGHTS_FILE, weights, config.network)
    except OSError as error:
        raise TrainerError(
            f"cannot write to {directory}: {error.strerror or error}; the saved state is intact"
        ) from error


def draw_grid(config: PretrainConfig, weights: Mapping[str, Tensor], images: TrainingImages) -> Image.Image:
    """Draw an image of each of 64 classes, spread over all; of a tokenizer, images beside their decoding."""
    if config.network["class_name"] == "VQVAE":
        return _draw_reconstructions(config, weights, images)
    classes = max(1, len(images.class_names))
    chosen = [i * classes // GRID_IMAGES for i in range(GRID_IMAGES)]
    spec = spec_of(config, images.class_names, Lineage(source="a run under way"))
    networks: dict[str, Any] = {"main": weights}
    if config.tokenizer is not None:
        networks["vqvae"] = load_weights(config.tokenizer)[0].state_dict()
    with tempfile.TemporaryDirectory() as folder:
        version = candidate(Path(folder) / "version", spec, networks)
        requests = [ImageRequest(class_id=class_id, seed=i) for i, class_id in enumerate(chosen)]
        sheet = sample(version, requests, Progress(disable=True))
    return contact_sheet(sheet, columns=8, scale=2)


@torch.inference_mode()
def _draw_reconstructions(
    config: PretrainConfig, weights: Mapping[str, Tensor], images: TrainingImages
) -> Image.Image:
    vqvae = build(config.network)
    assert isinstance(vqvae, VQVAE)
    vqvae.load_state_dict(weights)
    originals = images.read(np.linspace(0, len(images) - 1, GRID_IMAGES // 2).astype(np.int64))
    pairs = torch.stack([originals, vqvae.decode(vqvae.encode(originals))], dim=1)
    return contact_sheet(to_pixels(pairs.flatten(0, 1)), columns=8, scale=2)


class FigureColumn(ProgressColumn):
    """Whatever figures a task has at the moment: the loss, images a second, log-ratios."""

    def render(self, task: Task) -> Text:
        """Return them side by side, by name."""
        return Text("  ".join(f"{name} {value:.4g}" for name, value in task.fields.items()))


def training_progress(disable: bool = False) -> Progress:
    """Return the bar that `watch` fills."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        FigureColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        disable=disable,
    )
