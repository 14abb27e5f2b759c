"""`python -m trainer pretrain`: it learns, publishes what it learned, and says what does not fit."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file
from tiny_runs import LEVELS, NETWORKS, config, images, training, write_toml
from typer.testing import CliRunner

import trainer
from engines import EngineSettings, load
from engines.base import ImageRequest
from models import build
from models.registry import Registry
from trainer.cli import app
from trainer.config import PretrainConfig, load_config
from trainer.errors import TrainerError
from trainer.training.checkpoint import load_state
from trainer.weights import WEIGHTS_FILE, save_weights

CONFIGS = sorted((Path(trainer.__file__).parent / "configs").glob("*.toml"))
PRETRAIN_CONFIGS = [path for path in CONFIGS if "objective" in tomllib.loads(path.read_text())]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    images().save(tmp_path / "data.npz")
    return tmp_path / "data.npz"


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def pretrain(directory: Path, table: Mapping[str, Any]) -> Result:
    """Run `pretrain` in `directory`/run with a configuration written to `directory`/run.toml."""
    directory.mkdir(exist_ok=True)
    return command("pretrain", write_toml(directory / "run.toml", table), "--out", directory / "run")


def log_of(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "run" / "log.jsonl").read_text().splitlines()]


def made_by(registry: Path, name: str, class_id: int) -> Any:
    """Return the image (H, W, 3) that the published model makes."""
    engine = load(Registry(registry).open(name), EngineSettings(precision="float32"))
    row = engine.open(engine.resolve(ImageRequest(class_id=class_id, seed=5)))
    while row.calls_left:
        engine.step([row])
    return engine.image(row)


def train_and_publish(directory: Path, table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the log of a run whose first moving average is the current version of `directory`/registry."""
    result = pretrain(directory, table)
    assert result.exit_code == 0, result.output
    state = load_state(directory / "run")
    assert state is not None
    average = next(iter(state["averages"].values()))
    weights = load_file(directory / "run" / WEIGHTS_FILE)
    assert weights.keys() == state["network"].keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, average.get(name, state["network"][name])), name
    assert any(not torch.equal(tensor, state["network"][name]) for name, tensor in weights.items())

    if table["network"]["class_name"] != "VQVAE":
        arguments = (directory / "run.toml", directory / "run", "--registry", directory / "registry")
        assert (result := command("publish", *arguments)).exit_code == 0, result.output
        version = Registry(directory / "registry").open(table["name"])
        version.verify()
        published = load_file(version.directory / version.spec.networks["main"].weights)
        for name, tensor in average.items():
            assert torch.equal(published[name], tensor.half()), name
    return log_of(directory)


@pytest.mark.parametrize(
    ("kind", "optimizer", "last_rate"),
    [
        (
            "edm",
            {"learning_rate": 3e-3, "schedule": {"kind": "linear", "decay_images": 800}},
            3e-3 * 16 / 800,
        ),
        (
            "edm2",
            {"learning_rate": 8e-3, "schedule": {"kind": "inverse-square-root", "constant_images": 800}},
            8e-3 * (800 / 3184) ** 0.5,
        ),
    ],
)
def test_diffusion_learns_its_classes_and_publishes_them(
    kind: str, optimizer: dict[str, Any], last_rate: float, tmp_path: Path, data: Path
) -> None:
    settings = training(
        images=3200,
        batch=16,
        report_steps=20,
        checkpoint_seconds=1e6,
        averages=[{"kind": "half-life", "images": 200}, {"kind": "power", "std": 0.1}],
        optimizer={"warmup_images": 160, **optimizer},
    )
    table = config(kind, data, training=settings, grid_images=1500)
    table["network"] = {**NETWORKS[kind], "dropout": 0.0}
    log = train_and_publish(tmp_path, table)
    assert [line["images"] for line in log] == list(range(320, 3201, 320))
    assert log[-1]["loss"] < 0.75 * log[0]["loss"]
    assert log[-1]["learning_rate"] == pytest.approx(last_rate)
    grids = sorted(path.name for path in (tmp_path / "run" / "grids").iterdir())
    assert grids == ["000001600.png", "000003200.png"]
    for class_id, level in enumerate(LEVELS):
        image = made_by(tmp_path / "registry", f"tiny-{kind}", class_id)
        assert image.shape == (8, 8, 3)
        assert abs(image.mean() - level) < 40


def test_var_learns_on_the_tokens_of_its_own_tokenizer(tmp_path: Path, data: Path) -> None:
    settings = training(
        images=1600,
        batch=16,
        report_steps=20,
        checkpoint_seconds=1e6,
        averages=[{"kind": "half-life", "images": 100}],
        optimizer={
            "learning_rate": 5e-3,
            "warmup_images": 80,
            "schedule": {"kind": "linear", "decay_images": 400},
        },
    )
    log = train_and_publish(tmp_path / "vqvae", config("vqvae", data, training=settings, grid_images=1600))
    assert log[-1]["loss"] < 0.3 * log[0]["loss"]
    assert log[-1]["reconstruction"] < 0.1
    assert (tmp_path / "vqvae" / "run" / "grids" / "000001600.png").exists()
    tokenizer = tmp_path / "vqvae" / "run" / WEIGHTS_FILE

    table = config("var", data, training=settings, grid_images=1600, tokenizer=str(tokenizer))
    log = train_and_publish(tmp_path / "var", table)
    assert log[-1]["loss"] < 0.3 * log[0]["loss"]
    tokens = [1, 4, 16]
    scales = [sum(n * line[f"scale_{k}"] for k, n in enumerate(tokens)) / sum(tokens) for line in log]
    assert scales == pytest.approx([line["loss"] for line in log], rel=1e-5)
    assert (tmp_path / "var" / "run" / "grids" / "000001600.png").exists()
    for class_id, level in enumerate(LEVELS):
        image = made_by(tmp_path / "var" / "registry", "tiny-var", class_id)
        assert image.shape == (8, 8, 3)
        assert abs(image.mean() - level) < 40


def test_a_tokenizer_is_not_published_alone(tmp_path: Path, data: Path) -> None:
    assert pretrain(tmp_path, config("vqvae", data, training=training(images=8))).exit_code == 0
    result = command("publish", tmp_path / "run.toml", tmp_path / "run", "--registry", tmp_path / "registry")
    assert result.exit_code == 1
    assert "a tokenizer is published with the VAR" in result.output


def test_a_model_without_classes_is_trained_and_published(tmp_path: Path, data: Path) -> None:
    table = config("edm", data, training=training(images=16), golden_class=0, grid_images=16)
    table["network"] = {**NETWORKS["edm"], "label_dim": 0}
    train_and_publish(tmp_path, table)
    assert (tmp_path / "run" / "grids" / "000000016.png").exists()


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("edm", {"img_resolution": 8}, r"\(12, 4, 4\) after folding by 2, the network takes \(12, 8, 8\)"),
        ("edm", {"img_channels": 3}, r"\(12, 4, 4\) after folding by 2, the network takes \(3, 4, 4\)"),
        ("edm", {"label_dim": 3}, "has 2 classes, the network 3"),
        ("edm2", {"label_dim": 1}, "has 2 classes, the network 1"),
        ("edm2", {"wings": 2}, "Precond does not take these constructor arguments"),
        ("edm", {"model_type": "V-Net"}, "EDMPrecond does not take .* unknown model_type 'V-Net'"),
        ("vqvae", {"patch_nums": [1, 2]}, r"\(3, 8, 8\) after folding by 1, the network takes \(3, 4, 4\)"),
        ("var", {"num_classes": 3}, "has 2 classes, the network 3"),
        ("var", {"vocab_size": 32}, r"has vocab_size = 16, the VAR 32: make them equal"),
        (
            "var",
            {"patch_nums": [1, 2, 3]},
            r"has patch_nums = \(1, 2, 4\), the VAR \(1, 2, 3\): make them equal",
        ),
    ],
)
def test_a_network_that_does_not_fit_is_named(
    kind: str, changes: dict[str, Any], message: str, tmp_path: Path, data: Path
) -> None:
    table = config(kind, data)
    if kind == "var":
        table["tokenizer"] = str(save_tokenizer(tmp_path))
    table["network"] = {**table["network"], **changes}
    assert_refused(pretrain(tmp_path, table), message)
    assert not (tmp_path / "run").exists()


def test_images_that_the_tokenizer_does_not_take_are_named(tmp_path: Path, data: Path) -> None:
    table = config("var", data, tokenizer=str(save_tokenizer(tmp_path, ch_mult=[1])))
    assert_refused(
        pretrain(tmp_path, table), r"\(3, 8, 8\) after folding by 1, the network takes \(3, 4, 4\)"
    )


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, data: Path) -> None:
    weights = tmp_path / "var.safetensors"
    network = {**NETWORKS["var"]}
    save_weights(weights, build(network).state_dict(), network)
    assert_refused(
        pretrain(tmp_path, config("var", data, tokenizer=str(weights))), "holds no tokenizer but VAR"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"golden_class": 2}, "golden_class is 2, but the network has 2 classes"),
        ({"objective": {"kind": "uncertainty"}}, r"EDMPrecond is trained with objective\.kind = 'denoising'"),
        (
            {"tokenizer": "weights.safetensors"},
            "VAR needs the weights of its tokenizer, and nothing else has one",
        ),
        ({"training": training(batch=9, microbatch=2)}, "batch 9 is no multiple of microbatch 2"),
        ({"training": training(averages=[])}, r"training\.averages"),
        ({"wings": 2}, "wings"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_named(
    changes: dict[str, Any], message: str, tmp_path: Path, data: Path
) -> None:
    assert_refused(pretrain(tmp_path, config("edm", data, **changes)), message)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, data: Path) -> None:
    (tmp_path / "run").touch()
    assert_refused(pretrain(tmp_path, config("edm", data)), r"cannot write to .*run: Not a directory")


def test_a_run_is_published_with_its_own_configuration_only(tmp_path: Path, data: Path) -> None:
    assert pretrain(tmp_path, config("edm", data, training=training(images=8))).exit_code == 0
    other = write_toml(tmp_path / "other.toml", config("edm2", data))
    assert_refused(command("publish", other, tmp_path / "run"), "is not a run of this configuration")
    assert_refused(command("publish", other, tmp_path), "holds no network of a finished run")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot read the configuration .*run\.toml: No such file"),
        ("name = ", r"run\.toml: Invalid value"),
        ('name = "x"\n[training]\nimages = -1', r"(?s)run\.toml: .*training\.images"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_named(
    content: str | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "run.toml").write_text(content)
    with pytest.raises(TrainerError, match=message):
        load_config(tmp_path / "run.toml", PretrainConfig)


@pytest.mark.parametrize("path", PRETRAIN_CONFIGS, ids=lambda path: path.stem)
def test_the_configurations_that_come_along_are_valid(path: Path) -> None:
    settings = load_config(path, PretrainConfig)
    with torch.device("meta"):
        network = build(settings.network)
    assert sum(parameter.numel() for parameter in network.parameters()) > 1_000_000


def save_tokenizer(directory: Path, **changes: Any) -> Path:
    init = {**NETWORKS["vqvae"], **changes}
    path = directory / "tokenizer.safetensors"
    save_weights(path, build(init).state_dict(), init)
    return path


def assert_refused(result: Result, message: str) -> None:
    """A line that says why, and no traceback."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert "error: " in result.output
    assert re.search(message, result.output.replace("\n", " ")), result.output
