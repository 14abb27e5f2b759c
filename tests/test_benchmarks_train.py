"""The trainer's DDO step and the benchmark's plain one are the same mathematics."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import plain_ddo
from benchmarks.cli import cli
from benchmarks.train import EAGER, PLAIN

TINY = """
[network]
class_name = "EDMPrecond"
model_type = "SongUNet"
img_resolution = 4
img_channels = {channels}
label_dim = {classes}
model_channels = 16
channel_mult = [1]
num_blocks = 1
attn_resolutions = []
"""
OPTIONS = ["--pairs", "3", "--repetitions", "2", "--no-compile"]


@pytest.fixture(params=[(12, 2), (3, 0)], ids=["folded", "unconditional"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    channels, classes = request.param
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.format(channels=channels, classes=classes))
    return path


def test_gradients_are_the_same(config: Path) -> None:
    result = CliRunner().invoke(cli, ["train", str(config), *OPTIONS])
    assert result.exit_code == 0, result.output
    assert "3 pairs a step, 2 steps each" in result.output
    assert all(name in result.output for name in (PLAIN, EAGER))


def test_another_loss_is_noticed(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = plain_ddo.log_density
    monkeypatch.setattr(plain_ddo, "log_density", lambda *arguments: 1.001 * exact(*arguments))
    assert CliRunner().invoke(cli, ["train", str(config), *OPTIONS]).exit_code == 1
