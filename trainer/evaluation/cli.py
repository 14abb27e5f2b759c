"""`python -m trainer evaluate` and `statistics`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from engines import EngineSettings, load
from engines.base import Engine
from engines.pixels import Pixels
from models.version import open_version
from trainer.data.replacing import replacing
from trainer.errors import DataError, TrainerError
from trainer.evaluation.evaluate import JudgedModel, generated_batches, keeping
from trainer.evaluation.evaluate import evaluate as judge_model
from trainer.evaluation.extractors import open_extractor
from trainer.evaluation.feature_set import FeatureSet
from trainer.evaluation.features import FeatureExtractor, feature_chunks
from trainer.evaluation.images import open_real
from trainer.evaluation.judge import Judge
from trainer.evaluation.plan import SamplingPlan
from trainer.evaluation.statistics import ReferenceStatistics
from trainer.grid import contact_sheet

app = typer.Typer()

Extractor = Annotated[
    str,
    typer.Option(
        help="efficientnet-lite0, inception-v3 (FID), or package.module:Class called with a device."
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="Weights of inception-v3; by default they are downloaded.", exists=True, dir_okay=False
    ),
]
Device = Annotated[str, typer.Option(help="Where networks run: cpu, cuda, cuda:1 ...")]


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Directory of a model version.", file_okay=False)],
    *,
    data: Annotated[
        Path | None,
        typer.Option(help="Real images: an .npz or .zip of `data`.", exists=True, dir_okay=False),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="The .npz of `statistics` or any with mu and sigma.", exists=True, dir_okay=False),
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(
            help="Real images that the model has not seen, judged too.", exists=True, dir_okay=False
        ),
    ] = None,
    extractor: Extractor = "efficientnet-lite0",
    weights: Weights = None,
    neighbours: Annotated[
        bool, typer.Option(help="Figures that compare image with image: precision, recall, nearest image.")
    ] = True,
    images: Annotated[int, typer.Option(help="How many to generate, classes in turn.", min=2)] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the first image; each further one adds 1.", min=0)] = 0,
    steps: Annotated[int | None, typer.Option(help="Default: the model's.", min=1)] = None,
    solver: Annotated[str | None, typer.Option(help="Default: the model's.")] = None,
    cfg: Annotated[float, typer.Option(help="Guidance scale; 1 is none.")] = 1.0,
    temperature: Annotated[float | None, typer.Option(help="VAR only; default: the model's.")] = None,
    top_k: Annotated[int | None, typer.Option(help="VAR only, 0: off; default: the model's.")] = None,
    top_p: Annotated[float | None, typer.Option(help="VAR only, 0: off; default: the model's.")] = None,
    var_raw_cfg: Annotated[
        float | None, typer.Option(help="VAR only, in place of cfg: what VAR's own code calls so.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Images in one engine call.", min=1)] = 16,
    device: Device = "cpu",
    out: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Also draw the first image of each class on this PNG.")
    ] = None,
) -> None:
    """Generate images with a model and compare them with real ones."""
    if data is None and reference is None:
        raise TrainerError("there is nothing to compare with: give --data, --reference or both")
    version = open_version(model)
    classes = len(version.spec.class_names)
    real, unseen = open_real(data) if data is not None else (None, None)
    if held_out is not None:
        unseen, _ = open_real(held_out)
    for known in (real, unseen):
        if known is not None and classes and known.classes != classes:
            raise DataError(f"{version.spec.name} has {classes} classes, {known.source} has {known.classes}")
    asked = SamplingPlan(
        images=images,
        seed=seed,
        steps=steps,
        solver=solver,
        cfg=cfg,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        var_raw_cfg=var_raw_cfg,
    )
    engine: Engine[Any] = load(version, EngineSettings(max_rows=rows, device=device))
    plan = asked.resolved(engine, classes)
    first: list[Pixels] = []
    with evaluation_progress() as progress:
        judge = Judge(
            _open(extractor, device, weights),
            progress,
            real=real,
            statistics=ReferenceStatistics.load(reference) if reference is not None else None,
            neighbours=neighbours,
        )
        batches = generated_batches(engine, plan, classes, progress)
        evaluation = judge_model(
            judge,
            keeping(batches, first, max(classes, 1) if sheet is not None else 0),
            model=JudgedModel.of(version),
            plan=plan,
            held_out=unseen,
        )
    figures = evaluation.model_dump_json(indent=2)
    typer.echo(figures)
    if out is not None:
        with replacing(out) as file:
            file.write(f"{figures}\n".encode())
    if sheet is not None:
        with replacing(sheet) as file:
            contact_sheet(np.stack(first), columns=16, scale=2).save(file, "png")


@app.command()
def statistics(
    data: Annotated[
        Path, typer.Argument(help="Real images: an .npz or .zip of `data`.", exists=True, dir_okay=False)
    ],
    out: Annotated[Path, typer.Argument(help="The .npz to write: mu, sigma.", dir_okay=False)],
    *,
    extractor: Extractor = "efficientnet-lite0",
    weights: Weights = None,
    device: Device = "cpu",
) -> None:
    """Reduce real images to the statistics that a Frechet distance needs."""
    images, _ = open_real(data)
    features = _open(extractor, device, weights)
    with evaluation_progress() as progress:
        chunks = feature_chunks(features, images.batches(), progress, total=len(images))
        measured = FeatureSet.gather(chunks).statistics
    reference = ReferenceStatistics.of(measured, extractor=features.name, source=images.source)
    reference.save(out)
    typer.echo(f"{out}: {measured.count} images, {measured.mean.size} features of {features.name}")


def evaluation_progress() -> Progress:
    """Return the bars that judging fills."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _open(name: str, device: str, weights: Path | None) -> FeatureExtractor:
    try:
        place = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise TrainerError(f"the device {device!r} cannot be used: {error}") from error
    return open_extractor(name, place, weights)
