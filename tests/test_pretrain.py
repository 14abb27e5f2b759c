"""Maximum-likelihood training: it learns, resumes to the bit, publishes, and says what is wrong."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.progress import Progress
from safetensors.torch import load_file

from engines import EngineSettings, load
from engines.base import ImageRequest
from models.registry import Registry
from trainer.config import OptimizerConfig, load_config
from trainer.data.dataset import LabelledImages
from trainer.errors import DataError, NonFiniteLossError, TrainerError
from trainer.objectives.denoising import denoising_loss
from trainer.publish import publish_run
from trainer.training.checkpoint import load_state
from trainer.training.pretrain import Pretraining, learning_rate
from trainer.training.runner import watch

CONFIG = """
name = "squares"
images = {images}
batch = 8
ema_images = 200
precision = "float32"
compile = false
golden_class = 1
checkpoint_seconds = 0.01
grid_images = 400

[network]
class_name = "EDMPrecond"
img_resolution = 4
img_channels = 12
label_dim = 2
model_type = "SongUNet"
model_channels = 16
channel_mult = [1]
num_blocks = 1
attn_resolutions = []
dropout = 0.0
label_dropout = 0.1

[data]
path = "{data}"
styles = ["plain"]
fold = 2

[optimizer]
learning_rate = {rate}
warmup_images = 0
decay_images = 200
"""


def save_data(path: Path, **changes: np.ndarray) -> None:
    """Write 2 classes of 8x8 images: dark and bright."""
    levels = np.repeat(np.array([40, 215], np.uint8), 8)
    arrays = {
        "images": np.broadcast_to(levels[:, None, None, None], (16, 8, 8, 3)).copy(),
        "labels": np.repeat([0, 1], 8),
        "style": np.zeros(16, np.uint8),
        "style_names": np.array(["plain", "other"]),
        "class_names": np.array(["dark", "bright"]),
    }
    np.savez(path, **{**arrays, **changes})


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    save_data(tmp_path / "data.npz")
    path = tmp_path / "run.toml"
    path.write_text(CONFIG.format(images=640, rate=2e-3, data=tmp_path / "data.npz"))
    return path


def train(config_file: Path, directory: Path) -> dict[str, torch.Tensor]:
    watch(load_config(config_file), directory, Progress(disable=True))
    state = load_state(directory)
    assert state is not None
    return dict(state["average"])


def test_training_learns_the_classes_and_publishes_them(config_file: Path, tmp_path: Path) -> None:
    config_file.write_text(CONFIG.format(images=3200, rate=2e-3, data=tmp_path / "data.npz"))
    train(config_file, tmp_path / "run")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.6 * losses[0]
    assert sorted(path.name for path in (tmp_path / "run" / "grids").iterdir())[0].startswith("0000004")

    version = publish_run(
        load_config(config_file),
        tmp_path / "run",
        registry=tmp_path / "registry",
        directory=None,
        figures=None,
        progress=Progress(disable=True),
    )
    Registry(tmp_path / "registry").verify("squares")
    modes = {path.stat().st_mode for path in version.directory.iterdir()}
    assert len(modes) == 1  # readable alike: weights are not private to the publisher
    assert version.spec.lineage.metrics["training_images"] == 3200
    assert (
        load_file(version.directory / "weights.safetensors")["model.map_layer0.weight"].dtype == torch.float16
    )
    engine = load(version, EngineSettings(precision="float32"))
    for class_id, level in enumerate((40, 215)):
        row = engine.open(engine.resolve(ImageRequest(class_id=class_id, seed=5)))
        while row.calls_left:
            engine.step([row])
        image = engine.image(row)
        assert image.shape == (8, 8, 3)
        assert abs(image.mean() - level) < 40


def test_a_killed_run_resumes_to_the_same_bits(config_file: Path, tmp_path: Path) -> None:
    whole = train(config_file, tmp_path / "whole")
    command = [
        sys.executable,
        "-m",
        "trainer",
        "pretrain",
        str(config_file),
        "--out",
        str(tmp_path / "killed"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    state_file = tmp_path / "killed" / "state.pt"
    while process.poll() is None and not state_file.exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    state = load_state(tmp_path / "killed")
    assert state is not None
    assert 0 < state["seen"] <= 640
    resumed = train(config_file, tmp_path / "killed")
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_every_image_comes_once_in_each_pass(config_file: Path) -> None:
    data = LabelledImages.load(load_config(config_file).data)
    data.images[:] = torch.arange(16.0)[:, None, None, None]
    seen = torch.cat([data.batch(step, 6, seed=3)[0][:, 0, 0, 0] for step in range(8)])
    for start in (0, 16, 32):
        assert sorted(seen[start : start + 16].tolist()) == list(range(16))
    assert not torch.equal(seen[:16], seen[16:32])
    assert torch.equal(seen[6:12], data.batch(1, 6, seed=3)[0][:, 0, 0, 0])


def test_the_loss_weighs_noise_levels_as_edm_does() -> None:
    images, noise = torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1)
    sigma = torch.tensor([0.5, 2.0])
    loss = denoising_loss(
        lambda x, sigma, labels: x, images, torch.zeros(2, 1), sigma=sigma, noise=noise, sigma_data=0.5
    )
    expected = [(s**2 + 0.25) / (s * 0.5) ** 2 * s**2 for s in (0.5, 2.0)]
    assert loss.item() == pytest.approx(sum(expected) / 2)


def test_learning_rate_warms_up_and_decays() -> None:
    config = OptimizerConfig(learning_rate=1.0, final_learning_rate=0.1, warmup_images=100, decay_images=200)
    rates = [learning_rate(seen, 1000, config) for seen in (0, 50, 100, 800, 900, 1000)]
    assert rates == pytest.approx([0, 0.5, 1, 1, 0.55, 0.1])


def test_a_loss_that_is_not_finite_stops_and_keeps_the_state(config_file: Path, tmp_path: Path) -> None:
    config = load_config(config_file)
    data = LabelledImages.load(config.data)
    run = Pretraining(config, data, tmp_path / "run")
    reports = run.run(report_steps=2)
    next(reports)
    next(reports)
    saved = (tmp_path / "run" / "state.pt").read_bytes()
    data.images[:] = float("nan")
    with pytest.raises(NonFiniteLossError, match="holds the last good state"):
        next(reports)
    assert (tmp_path / "run" / "state.pt").read_bytes() == saved


def test_a_state_that_cannot_be_written_leaves_the_last_one(config_file: Path, tmp_path: Path) -> None:
    config = load_config(config_file)
    run = Pretraining(config, LabelledImages.load(config.data), tmp_path / "r")
    run.save()
    saved = (tmp_path / "r" / "state.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(saved) // 2, limits[1]))
    try:
        with pytest.raises(TrainerError, match="previous state is intact"):
            run.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["state.pt"]
    assert (tmp_path / "r" / "state.pt").read_bytes() == saved
    (tmp_path / "r" / "state.pt").write_bytes(saved[: len(saved) // 2])
    with pytest.raises(TrainerError, match="damaged"):
        load_state(tmp_path / "r")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.full(16, 2)}, "labels must lie in 0 to 1"),
        ({"labels": np.zeros(16, np.int64)}, r"1 classes have no image, first 1 \(bright\)"),
        ({"images": np.zeros((16, 8, 8, 3), np.float32)}, "must be uint8"),
        ({"style_names": np.array(["else", "other"])}, r"unknown styles \['plain'\]"),
    ],
)
def test_bad_data_is_named(
    config_file: Path, tmp_path: Path, changes: dict[str, np.ndarray], message: str
) -> None:
    save_data(tmp_path / "data.npz", **changes)
    with pytest.raises(DataError, match=message):
        LabelledImages.load(load_config(config_file).data)


def test_unreadable_data_and_configuration_are_named(config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(b"not an archive")
    with pytest.raises(DataError, match="cannot read the data set"):
        LabelledImages.load(load_config(config_file).data)
    with pytest.raises(TrainerError, match="cannot read the configuration"):
        load_config(tmp_path / "absent.toml")
    config_file.write_text("name = ")
    with pytest.raises(TrainerError, match=r"run\.toml"):
        load_config(config_file)
    config_file.write_text('name = "x"\nimages = -1\n[network]\n[data]\npath = "x"')
    with pytest.raises(TrainerError, match="images"):
        load_config(config_file)


def test_the_command_line_says_why_in_one_line(tmp_path: Path) -> None:
    save_data(tmp_path / "data.npz")
    path = tmp_path / "run.toml"
    path.write_text(CONFIG.format(images=640, rate=1e-3, data=tmp_path / "data.npz"))
    (tmp_path / "empty").mkdir()
    result = subprocess.run(
        [sys.executable, "-m", "trainer", "publish", str(path), str(tmp_path / "empty")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "holds no run" in result.stderr
    assert "Traceback" not in result.stderr
