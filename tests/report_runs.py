"""Folders of runs of rounds, as the files of a run would be, without training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainer.evaluation.evaluate import Evaluation, FrechetReference, JudgedModel
from trainer.evaluation.judge import Figures, RealFigures
from trainer.evaluation.plan import SamplingPlan
from trainer.rounds.config import RoundsConfig
from trainer.rounds.records import RoundResult, RunRecord, Trial, Trials, write_record

NASTY = '<script src="x"></script> & "emoji"'
DDO = {"kind": "diffusion-ddo", "alphas": [4.0, 1.0], "betas": [0.05]}
NEON = {"kind": "neon", "weights": [0.5, 2.0], "objective": {"kind": "denoising"}}
AVERAGE = "half-life-8"


def config(method: Mapping[str, Any] = DDO, **fields: Any) -> RoundsConfig:
    training = {"images": 24, "batch": 8, "averages": [{"kind": "half-life", "images": 8}]}
    evaluation = {"plan": {"images": 32, "seed": 5}, "every_images": 8, "patience": 2}
    given = {"name": "tiny", "parent": "tiny", "data": {"path": NASTY}, "rounds": 4, "method": method}
    pool = {"plan": {"images": 24}}
    return RoundsConfig.model_validate(
        {**given, "training": training, "evaluation": evaluation, "pool": pool, **fields}
    )


def figures(distance: float, **others: float) -> Figures:
    return Figures(images=32, frechet_distance=distance, **others)


def start(folder: Path, base: Figures, settings: RoundsConfig | None = None) -> None:
    """Write what a run has before its first round."""
    reference = FrechetReference(name="Frechet distance (means)", source=NASTY, images=48, extractor="means")
    evaluation = Evaluation(
        model=JudgedModel(name="tiny", weights={"main": "0" * 64}),
        plan=SamplingPlan(images=32, seed=5, steps=7, solver="heun"),
        extractor="means",
        frechet=reference,
        real=None
        if base.centroid_accuracy is None
        else RealFigures(source=NASTY, images=48, class_diversity=9.75),
        generated=base,
        held_out=None,
    )
    write_record(folder / "run.json", RunRecord(config=settings or config(), parent="tiny/0001"))
    write_record(folder / "base.json", evaluation)


def candidate(
    folder: Path, trials: Sequence[Trial], names: Sequence[str] = ("real", "fake", "accuracy")
) -> None:
    """Write what the training of a candidate leaves."""
    folder.mkdir(parents=True)
    lines = [
        {"images": images, "loss": 1.0 / images, **{name: images / 4 for name in names}, "time": "noon"}
        for images in (8, 16, 24)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    evaluations = Trials(folder)
    for trial in trials:
        evaluations.add(trial)


def trials(*found: tuple[int, Figures], w: float | None = None) -> list[Trial]:
    return [Trial(images=images, average=AVERAGE, w=w, figures=each) for images, each in found]


def end(folder: Path, number: int, name: str, trial: Trial, version: str | None) -> None:
    result = RoundResult(round=number, candidate=name, **dict(trial), version=version, parent="tiny/0001")
    write_record(folder / "result.json", result)


def sheet(path: Path, seed: int, size: int = 12) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
