"""Training that starts from the weights of a finished run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file
from tiny_runs import NETWORKS, config, images, training, write_toml
from torch import Tensor
from typer.testing import CliRunner

from models import build
from trainer.cli import app
from trainer.training.checkpoint import load_state
from trainer.weights import WEIGHTS_FILE, save_weights


@pytest.fixture
def data(tmp_path: Path) -> Path:
    images().save(tmp_path / "data.npz")
    return tmp_path / "data.npz"


def finished(kind: str, directory: Path, **changes: Any) -> tuple[Path, dict[str, Tensor]]:
    """Return the file and the weights of a network that some run left."""
    init = {**NETWORKS[kind], **changes}
    torch.manual_seed(5)
    weights = {name: torch.randn_like(tensor) / 20 for name, tensor in build(init).state_dict().items()}
    save_weights(directory / f"{kind}.safetensors", weights, init)
    return directory / f"{kind}.safetensors", weights


def pretrain(directory: Path, table: dict[str, Any]) -> Result:
    path = write_toml(directory / "run.toml", table)
    return CliRunner().invoke(app, ["pretrain", str(path), "--out", str(directory / "run")])


@pytest.mark.parametrize("kind", ["edm", "vqvae"])
def test_a_run_starts_where_it_is_told_to(kind: str, tmp_path: Path, data: Path) -> None:
    start, weights = finished(kind, tmp_path)
    slow = training(images=8, optimizer={"learning_rate": 1e-7, "warmup_images": 8})
    result = pretrain(tmp_path, config(kind, data, training=slow, start=str(start)))
    assert result.exit_code == 0, result.output
    for name, tensor in load_file(tmp_path / "run" / WEIGHTS_FILE).items():
        torch.testing.assert_close(tensor, weights[name], atol=1e-5, rtol=0)


def test_a_decoder_trained_alone_leaves_the_meaning_of_tokens(tmp_path: Path, data: Path) -> None:
    start, weights = finished("vqvae", tmp_path)
    table = config("vqvae", data, start=str(start), objective={"kind": "tokenizer", "decoder_only": True})
    assert pretrain(tmp_path, table).exit_code == 0
    trained = load_file(tmp_path / "run" / WEIGHTS_FILE)
    moved = {name for name, tensor in trained.items() if not torch.equal(tensor, weights[name])}
    parameters = dict(build(NETWORKS["vqvae"]).named_parameters())
    assert moved == {name for name in parameters if name.startswith(("decoder.", "post_quant_conv."))}
    state = load_state(tmp_path / "run")
    assert state is not None
    assert state["optimizer"].keys() == moved


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("edm", {"model_channels": 64}, r"edm\.safetensors holds another network than \[network\] describes"),
        ("edm", None, "holds no network of a finished run"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    kind: str, changes: dict[str, Any] | None, message: str, tmp_path: Path, data: Path
) -> None:
    start = data if changes is None else finished(kind, tmp_path, **changes)[0]
    result = pretrain(tmp_path, config(kind, data, start=str(start)))
    assert result.exit_code == 1
    assert re.search(message, result.output.replace("\n", " ")), result.output


def test_a_decoder_is_not_trained_alone_on_random_codes(tmp_path: Path, data: Path) -> None:
    table = config("vqvae", data, objective={"kind": "tokenizer", "decoder_only": True})
    result = pretrain(tmp_path, table)
    assert result.exit_code == 1
    assert "a decoder alone needs finished codes" in result.output.replace("\n", " ")
