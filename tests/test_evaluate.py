from __future__ import annotations

import hashlib
import json
from itertools import chain
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import var_tiny
from fake_engine import FakeEngine
from PIL import Image
from pydantic import ValidationError
from real_images import CLASSES, SIZE, Painter, Pixels, painting, paintings, real, styled
from rich.progress import Progress
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from engines.base import ImageRequest
from engines.errors import InvalidRequestError
from engines.sampling import generate
from models import build
from models.registry import Registry
from models.spec import DiffusionDefaults, Lineage, ModelSpec, NetworkSpec, PixelCodec
from models.version import open_version
from trainer.cli import app
from trainer.data.arrays import ArrayImages
from trainer.data.emoji import TRAINING_STYLES
from trainer.errors import DataError
from trainer.evaluation.evaluate import Evaluation, JudgedModel, evaluate, generated_batches
from trainer.evaluation.judge import Judge
from trainer.evaluation.plan import SamplingPlan
from trainer.evaluation.statistics import ReferenceStatistics

QUIET = Progress(disable=True)
MODEL = JudgedModel(name="tiny", weights={"main": "0" * 64})


def run(engine: FakeEngine, plan: SamplingPlan) -> Evaluation:
    judge = Judge(Pixels(), QUIET, real=real())
    batches = generated_batches(engine, plan, CLASSES, QUIET)
    return evaluate(judge, batches, model=MODEL, plan=plan.resolved(engine, CLASSES), held_out=real(30, 9000))


def test_figures_carry_what_they_depend_on() -> None:
    evaluation = run(Painter(), SamplingPlan(images=50, seed=7))
    assert (evaluation.model, evaluation.extractor) == (MODEL, "pixels")
    assert evaluation.plan == SamplingPlan(images=50, seed=7, steps=4, solver="heun")
    assert evaluation.frechet.model_dump() == {
        "name": "Frechet distance (pixels)",
        "source": "paintings",
        "images": 60,
        "extractor": "pixels",
    }
    assert evaluation.real is not None
    assert evaluation.held_out is not None
    assert (evaluation.real.source, evaluation.real.images) == ("paintings", 60)
    assert (evaluation.generated.images, evaluation.held_out.figures.images) == (50, 30)
    assert evaluation.generated.centroid_accuracy == evaluation.held_out.figures.centroid_accuracy == 1.0
    metrics = evaluation.metrics()
    assert metrics["frechet_distance_pixels"] == evaluation.generated.frechet_distance
    assert metrics["images_pixels"] == 50
    assert {"centroid_accuracy_pixels", "recall_pixels"} <= metrics.keys()


def test_worse_models_get_worse_figures() -> None:
    plan = SamplingPlan(images=50)
    good = run(Painter(), plan).generated
    confused = run(Painter(wrong={0: 1}), plan).generated
    assert confused.centroid_accuracy == pytest.approx(0.8)
    assert confused.frechet_distance > 2 * good.frechet_distance


def test_images_lost_on_the_way_are_noticed() -> None:
    judge = Judge(Pixels(), QUIET, real=real())
    with pytest.raises(DataError, match="50 images were planned, 40 were given"):
        evaluate(judge, [paintings(40, 0)], model=MODEL, plan=SamplingPlan(images=50))


def test_generated_images_come_in_order_with_their_labels() -> None:
    plan = SamplingPlan(images=71, seed=7)
    engine = Painter()
    batches = list(generated_batches(engine, plan, CLASSES, QUIET))
    images, labels = (np.concatenate(list(part)) for part in zip(*batches, strict=True))
    assert labels.tolist() == [i % CLASSES for i in range(71)]
    assert all(np.array_equal(images[i], painting(i % CLASSES, 7 + i)) for i in range(71))
    assert engine.rows == []


def test_plan_reaches_the_engine() -> None:
    engine = Painter(capacity=8, max_rows=3)
    run(engine, SamplingPlan(images=7, seed=100, steps=2, solver="euler", cfg=1.5))
    asked = {request.seed: request for request in chain(*engine.batches)}
    assert asked[104] == ImageRequest(class_id=4, seed=104, cfg=1.5, steps=2, solver="euler")
    assert sorted(asked) == list(range(100, 107))
    assert max(len(batch) for batch in engine.batches) == 3


def test_a_model_without_classes_is_asked_for_none() -> None:
    engine = Painter()
    batches = list(generated_batches(engine, SamplingPlan(images=5), 0, QUIET))
    assert [labels for _, labels in batches] == [None]
    assert {request.class_id for request in chain(*engine.batches)} == {None}


def test_var_settings_are_recorded() -> None:
    engine = var_tiny.tiny_engine()
    plan = SamplingPlan(images=2, top_k=5, var_raw_cfg=1.5).resolved(engine, var_tiny.NUM_CLASSES)
    assert plan == SamplingPlan(images=2, temperature=1.0, top_k=5, top_p=0.0, var_raw_cfg=1.5)
    ((images, labels),) = generated_batches(engine, plan, var_tiny.NUM_CLASSES, QUIET)
    assert images.shape == (2, 64, 64, 3)
    assert labels is not None
    assert labels.tolist() == [0, 1]


@pytest.mark.parametrize("lanes", [1, 3])
def test_order_does_not_depend_on_lanes_and_rows_are_given_back(lanes: int) -> None:
    engine = Painter(lanes=lanes, capacity=4)
    requests = [ImageRequest(class_id=seed % 5, seed=seed, steps=1 + seed % 3) for seed in range(10)]
    images = list(generate(engine, requests, QUIET))
    assert all(np.array_equal(images[seed], painting(seed % 5, seed)) for seed in range(10))
    assert engine.rows == []
    assert engine.closed == 10


def test_rows_are_given_back_when_the_engine_fails() -> None:
    engine = Painter(fail_class=2)
    with pytest.raises(RuntimeError):
        run(engine, SamplingPlan(images=10))
    assert engine.rows == []
    assert engine.closed > 0


def test_impossible_plans_are_refused_before_any_work() -> None:
    engine = Painter()
    with pytest.raises(InvalidRequestError):
        SamplingPlan(images=10, solver="magic").resolved(engine, CLASSES)
    assert engine.batches == []
    for wrong in ({"images": 1}, {"seed": -1}, {"sampler": "heun"}):
        with pytest.raises(ValidationError):
            SamplingPlan.model_validate(wrong)


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """A model version with random weights."""
    init = {
        "class_name": "EDMPrecond",
        "img_resolution": SIZE,
        "img_channels": 3,
        "label_dim": CLASSES,
        "model_type": "SongUNet",
        "model_channels": 16,
        "channel_mult": [1],
        "num_blocks": 1,
        "attn_resolutions": [],
    }

    def write(directory: Path) -> ModelSpec:
        save_file(build(init).state_dict(), directory / "weights.safetensors")
        return ModelSpec(
            name="tiny",
            family="edm",
            networks={"main": NetworkSpec(init=init, weights="weights.safetensors")},
            codec=PixelCodec(),
            class_names=tuple("abcde"),
            defaults=DiffusionDefaults(steps=2),
            licence="Apache-2.0",
            lineage=Lineage(source="random"),
        )

    return Registry(tmp_path / "registry").publish(write).directory


@pytest.fixture
def emoji(tmp_path: Path) -> Path:
    path = tmp_path / "emoji.npz"
    styled().save(path)
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_command(untrained: Path, emoji: Path, tmp_path: Path) -> None:
    out, sheet = tmp_path / "metrics.json", tmp_path / "sheet.png"
    result = invoke("evaluate", untrained, "--data", emoji, "--images", 40, "--out", out, "--sheet", sheet)
    assert result.exit_code == 0, result.output
    evaluation = Evaluation.model_validate_json(out.read_text())
    assert Evaluation.model_validate_json(result.stdout) == evaluation
    digest = hashlib.sha256((untrained / "weights.safetensors").read_bytes()).hexdigest()
    assert evaluation.model == JudgedModel(name="tiny", weights={"main": digest})
    assert evaluation.extractor == "efficientnet-lite0"
    assert evaluation.plan == SamplingPlan(images=40, steps=2, solver="heun")
    assert evaluation.real is not None
    assert evaluation.real.images == len(TRAINING_STYLES) * CLASSES
    assert evaluation.held_out is not None
    assert evaluation.held_out.figures.images == CLASSES
    assert evaluation.generated.frechet_distance > evaluation.held_out.figures.frechet_distance > 0
    drawn = np.asarray(Image.open(sheet))
    assert drawn.shape == (2 * SIZE + 4, 16 * (2 * SIZE + 2) + 2, 3)
    empty = (drawn == 224).all(axis=(0, 2))
    assert empty[CLASSES * (2 * SIZE + 2) :].all()
    assert not empty[: CLASSES * (2 * SIZE + 2)].all()


def test_statistics_are_made_once_and_used(untrained: Path, emoji: Path, tmp_path: Path) -> None:
    stats, pixels = tmp_path / "stats.npz", ("--extractor", "real_images:Pixels")
    made = invoke("statistics", emoji, stats, *pixels)
    assert made.exit_code == 0, made.output
    assert "30 images, 48 features of pixels" in made.stdout
    assert ReferenceStatistics.load(stats).images == 30
    plan = ("--images", 7, "--steps", 1, "--seed", 3)
    from_file = invoke("evaluate", untrained, "--reference", stats, *pixels, *plan)
    from_images = invoke("evaluate", untrained, "--data", emoji, *pixels, *plan)
    assert from_file.exit_code == from_images.exit_code == 0, from_file.output
    alone, full = (json.loads(result.stdout) for result in (from_file, from_images))
    assert alone["generated"]["frechet_distance"] == pytest.approx(full["generated"]["frechet_distance"])
    assert (alone["real"], alone["held_out"], alone["generated"]["recall"]) == (None, None, None)
    assert alone["frechet"] == full["frechet"]


def test_a_zip_gives_the_statistics_of_its_pixels(tmp_path: Path) -> None:
    images, labels = paintings(40, 0)
    ArrayImages(images, labels, tuple("abcde")).save(tmp_path / "a.npz")
    names = [f"{number:05d}.png" for number in range(40)]
    with ZipFile(tmp_path / "b.zip", "w") as archive:
        for name, image in zip(names, images, strict=True):
            with archive.open(name, "w") as file:
                Image.fromarray(image).save(file, "png")
        pairs = list(zip(names, labels.tolist(), strict=True))
        archive.writestr("dataset.json", json.dumps({"labels": pairs}))
    for data in ("a.npz", "b.zip"):
        out = tmp_path / f"{data}.stats.npz"
        result = invoke("statistics", tmp_path / data, out, "--extractor", "real_images:Pixels")
        assert result.exit_code == 0, result.output
    of_array, of_zip = (ReferenceStatistics.load(path) for path in sorted(tmp_path.glob("*.stats.npz")))
    assert np.array_equal(of_array.mean, of_zip.mean)
    assert np.array_equal(of_array.covariance, of_zip.covariance)


def test_any_other_labelled_set_will_do(untrained: Path, tmp_path: Path) -> None:
    for name, seed in (("train.npz", 0), ("test.npz", 100)):
        ArrayImages(*paintings(20, seed), tuple("vwxyz")).save(tmp_path / name)
    result = invoke(
        *("evaluate", untrained, "--data", tmp_path / "train.npz", "--held-out", tmp_path / "test.npz"),
        *("--extractor", "real_images:Pixels", "--images", 10, "--no-neighbours"),
    )
    assert result.exit_code == 0, result.output
    evaluation = Evaluation.model_validate_json(result.stdout)
    assert evaluation.held_out is not None
    assert evaluation.held_out.source == str(tmp_path / "test.npz")
    assert evaluation.held_out.figures.centroid_accuracy == 1.0
    assert evaluation.generated.recall is None


def test_record_of_a_version(untrained: Path) -> None:
    assert len(JudgedModel.of(open_version(untrained)).weights["main"]) == 64


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (["--data", "{emoji}", "--solver", "magic"], "magic"),
        (["--data", "{model}/model.json"], "neither .npz nor .zip"),
        (["--data", "{few}"], "tiny has 5 classes"),
        (["--data", "{unstyled}"], "unknown styles"),
        ([], "give --data, --reference or both"),
        (["--reference", "{emoji}"], "not an .npz of statistics"),
        (["--data", "{emoji}", "--extractor", "vgg"], "unknown feature extractor 'vgg'"),
        (["--data", "{emoji}", "--extractor", "real_images:Missing"], "real_images:Missing"),
        (["--data", "{emoji}", "--extractor", "no_such_module:Pixels"], "no_such_module"),
        (["--data", "{emoji}", "--weights", "{emoji}"], "only inception-v3 takes a file of weights"),
        (["--data", "{emoji}", "--device", "abacus"], "'abacus' cannot be used"),
        (["--data", "{emoji}", "--extractor", "real_images:Pixels", "--out", "{emoji}/x"], "cannot write"),
    ],
)
def test_command_names_the_fault(
    more: list[str], fault: str, untrained: Path, emoji: Path, tmp_path: Path
) -> None:
    few, unstyled = tmp_path / "few.npz", tmp_path / "unstyled.npz"
    images, labels = paintings(20, 0)
    ArrayImages(images[labels < 3], labels[labels < 3], tuple("abc")).save(few)
    styled(TRAINING_STYLES).save(unstyled)
    places = {"model": untrained, "emoji": emoji, "few": few, "unstyled": unstyled}
    result = invoke("evaluate", untrained, "--images", 5, *(word.format(**places) for word in more))
    assert result.exit_code == 1
    assert "error: " in result.output
    assert fault in result.output
