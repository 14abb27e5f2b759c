"""A run as a person watches it: progress bar, log, sample grids."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from trainer.config import PretrainConfig
from trainer.data.dataset import LabelledImages
from trainer.grid import contact_sheet
from trainer.publish import sample
from trainer.training.pretrain import Pretraining

LOG_FILE = "log.jsonl"
GRID_CLASSES = 64


def watch(config: PretrainConfig, directory: Path, progress: Progress) -> Pretraining:
    """Train to the end in `directory`, which holds `state.pt`, `log.jsonl` and `grids/` afterwards.

    Every line of the log has the images seen, the mean loss since the line before, images a second and the
    time (UTC). A run that was killed goes on where its state ends.

    Raises:
        TrainerError: see `Pretraining`.
    """
    data = LabelledImages.load(config.data)
    run = Pretraining(config, data, directory)
    grids = directory / "grids"
    grids.mkdir(exist_ok=True)
    task = progress.add_task(config.name, total=config.images, completed=run.seen, loss=0.0, rate=0.0)
    drawn = run.seen // config.grid_images
    with (directory / LOG_FILE).open("a", buffering=1) as log:
        for report in run.run():
            progress.update(task, completed=report.images, loss=report.loss, rate=report.rate)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            line = {"images": report.images, "loss": report.loss, "rate": report.rate, "time": now}
            log.write(json.dumps(line) + "\n")
            if report.images // config.grid_images > drawn:
                drawn = report.images // config.grid_images
                draw_grid(run, grids / f"{report.images:09d}.png")
    return run


def draw_grid(run: Pretraining, path: Path) -> None:
    """Draw one image of each of 64 classes, spread over all, made by the moving average."""
    classes = len(run.data.class_names)
    count = min(GRID_CLASSES, classes)
    class_ids = [i * classes // count for i in range(count)]
    images = sample(run.average.network, run.config, class_ids, seed=0, progress=Progress(disable=True))
    contact_sheet(images, columns=8, scale=2).save(path)


def training_progress() -> Progress:
    """Return the bar that `watch` fills."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TextColumn("{task.fields[rate]:.0f} images/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
