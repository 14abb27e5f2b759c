"""Engines, runtimes and the user's checkouts are measured side by side, and their results compared."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.cli import cli

NETWORKS = """
[denoiser]
class_name = "EDMPrecond"
model_type = "SongUNet"
img_resolution = 8
img_channels = 3
label_dim = 3
model_channels = 16
channel_mult = [1]
num_blocks = 1
attn_resolutions = []

[transformer]
patch_nums = [1, 2]
num_classes = 5
depth = 1
embed_dim = 64
num_heads = 2
attn_l2_norm = true
shared_aln = false

[tokenizer]
patch_nums = [1, 2]
vocab_size = 16
z_channels = 8
ch = 32
share_quant_resi = 4
"""
EDM = """
from models.networks import edm

class EDMPrecond(edm.EDMPrecond):
    def forward(self, x, sigma, labels):
        denoised = super().forward(x, sigma, labels)
        return 1.1 * denoised if len(x) == 8 else denoised
"""
VAR = """
import torch

class Network(torch.nn.Module):
    def load_state_dict(self, state):
        assert state

    def autoregressive_infer_cfg(self, B, label_B, g_seed, cfg):
        assert B == 1, "one image at a time"
        return torch.full((B,), cfg)

def build_vae_var(*, device, patch_nums, V, Cvae, ch, share_quant_resi,
                  num_classes, depth, shared_aln, attn_l2_norm):
    return Network(), Network()
"""
REFERENCE = "reference code, float32"
FLOAT32 = ["torch eager, float32", "ONNX Runtime, float32", "OpenVINO, f32, one batch"]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what `peers` writes, with checkouts that are wrong at batch 8 and fail at batch 4."""
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("peers")
    (folder / "networks.toml").write_text(NETWORKS)
    for path, source in (("edm/training/networks.py", EDM), ("var/models/__init__.py", VAR)):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(source)
    options = {"--edm": "edm", "--var": "var", "--networks": "networks.toml", "--json": "figures.json"}
    arguments = [part for option, name in options.items() for part in (option, str(folder / name))]
    effort = ["--turns", "1", "--threads", "1", "--product", "64", "--no-compile"]
    result = CliRunner().invoke(cli, ["peers", *arguments, *effort])
    assert result.exit_code == 0, result.output
    assert all(title in result.output for title in ("batch 4", "cfg 1.5", "start to ready"))
    figures: list[dict[str, Any]] = json.loads((folder / "figures.json").read_text())
    return figures


@pytest.mark.slow
def test_denoisers_give_the_same(reports: list[dict[str, Any]]) -> None:
    measured = reports[0]["measured"]
    assert {name: own["failure"] for name, own in measured.items() if own["failure"]} == {}
    others = measured.keys() - {REFERENCE}
    assert len(others) == 8
    assert all(measured[name]["errors"][f"batch {n}"] < 2e-2 for name in others for n in (1, 4))
    assert all(measured[name]["errors"][f"batch {n}"] < 1e-5 for name in FLOAT32 for n in (1, 4))


@pytest.mark.slow
def test_another_result_is_noticed(reports: list[dict[str, Any]]) -> None:
    measured = reports[0]["measured"]
    assert all(measured[name]["errors"]["batch 8"] == pytest.approx(1 - 1 / 1.1, 1e-3) for name in FLOAT32)


@pytest.mark.slow
def test_a_failure_is_told_and_leaves_the_others(reports: list[dict[str, Any]]) -> None:
    measured = reports[1]["measured"]
    assert measured[REFERENCE]["failure"] == "AssertionError: one image at a time"
    assert len(measured[REFERENCE]["timings"]["batch 1, cfg 1.5"]) == 1
    for name in measured.keys() - {REFERENCE}:
        assert measured[name]["failure"] is None
        assert all(len(turns) == 1 for turns in measured[name]["timings"].values())


def test_peers_needs_a_checkout() -> None:
    result = CliRunner().invoke(cli, ["peers"])
    assert result.exit_code == 2
    assert "--edm" in result.output
