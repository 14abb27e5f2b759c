"""Runs of networks with a few thousand parameters on 16 images of two classes: dark and bright."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from models import build
from models.networks.vqvae import VQVAE
from trainer.data.arrays import ArrayImages
from trainer.data.tokens import TokenizedImages
from trainer.objectives.base import Objective
from trainer.objectives.config import Denoising, Uncertainty
from trainer.objectives.diffusion import DiffusionObjective
from trainer.objectives.tokens import LikelihoodObjective
from trainer.training.config import TrainingConfig
from trainer.training.loop import Loop
from trainer.training.processes import Processes

LEVELS = (40, 215)
SIDE = 8
ALONE = Processes(0, 1, torch.device("cpu"))

_GEOMETRY = {"img_resolution": 4, "img_channels": 12, "label_dim": 2}
_SCALES = {"patch_nums": [1, 2, 4], "vocab_size": 16, "z_channels": 4}
NETWORKS: Mapping[str, dict[str, Any]] = {
    "edm": {
        "class_name": "EDMPrecond",
        **_GEOMETRY,
        "model_type": "SongUNet",
        "model_channels": 16,
        "channel_mult": [1],
        "num_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.1,
        "label_dropout": 0.1,
    },
    "edm2": {
        "class_name": "Precond",
        **_GEOMETRY,
        "model_channels": 16,
        "channel_mult": [1],
        "num_blocks": 1,
        "attn_resolutions": [],
        "channels_per_head": 16,
        "logvar_channels": 8,
        "dropout": 0.1,
    },
    "var": {"class_name": "VAR", **_SCALES, "num_classes": 2, "depth": 1, "embed_dim": 16, "num_heads": 2},
    "vqvae": {"class_name": "VQVAE", **_SCALES, "ch": 32, "ch_mult": [1, 1]},
}
OBJECTIVES = {"edm": "denoising", "edm2": "uncertainty", "var": "likelihood", "vqvae": "tokenizer"}


def images(classes: int = 2) -> ArrayImages:
    """All of a class are of its one grey level."""
    labels = np.arange(16) % classes
    pixels = np.broadcast_to(np.array(LEVELS, np.uint8)[labels % 2, None, None, None], (16, SIDE, SIDE, 3))
    names = ("dark", "bright", "other")[:classes]
    return ArrayImages(pixels.copy(), labels, names, fold=2)


def config(kind: str, data: Path, **changes: Any) -> dict[str, Any]:
    """Return the configuration of a run as a TOML file holds it; `changes` replace whole tables."""
    return {
        "name": f"tiny-{kind}",
        "golden_class": 1,
        "grid_images": 400,
        "network": NETWORKS[kind],
        "data": {"path": str(data), "fold": 2 if kind.startswith("edm") else 1},
        "objective": {"kind": OBJECTIVES[kind]},
        "training": training(),
        **changes,
    }


def training(**changes: Any) -> dict[str, Any]:
    return {
        "images": 48,
        "batch": 8,
        "report_steps": 1,
        "checkpoint_seconds": 1e-6,
        "averages": [{"kind": "half-life", "images": 50}],
        "optimizer": {"learning_rate": 5e-3, "warmup_images": 16},
        **changes,
    }


def write_toml(path: Path, table: Mapping[str, Any]) -> Path:
    path.write_text("\n".join(_toml(table, ())))
    return path


def tiny_loop(
    directory: Path,
    kind: str = "edm",
    processes: Processes = ALONE,
    *,
    uncertain: bool = True,
    **changes: Any,
) -> Loop[Any]:
    """Return the loop of a run of EDM, EDM2 or VAR; `changes` go to `training`."""
    settings = TrainingConfig.model_validate(training(**changes))
    torch.manual_seed(settings.seed)
    objective = _objective(kind, uncertain and kind == "edm2", settings.seed)
    return Loop(build(NETWORKS[kind]).train(), objective, settings, directory, processes)


def _objective(kind: str, uncertain: bool, seed: int) -> Objective[Any]:
    device = torch.device("cpu")
    if kind == "var":
        vqvae = cast(VQVAE, build(NETWORKS["vqvae"]))
        tokens = TokenizedImages(torch.arange(16 * 21).view(16, 21) % 16, torch.arange(16) % 2, 2, vqvae)
        return LikelihoodObjective(tokens, 0.2, seed=seed, device=device)
    levels = Uncertainty() if uncertain else Denoising()
    return DiffusionObjective(images(), levels, seed=seed, device=device, uncertainty=uncertain)


def losses(loop: Loop[Any], until: int | None = None) -> list[float]:
    """Train, and return the loss of every step."""
    return [report.values["loss"] for report in loop.run(until)]


def parameters_of(network: nn.Module) -> Tensor:
    """Return all of them as one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def tensors_of(value: Any, name: str = "") -> dict[str, Any]:
    """Return the leaves of a state by their places in it."""
    if not isinstance(value, Mapping):
        return {name: value}
    return {
        place: leaf
        for key, item in value.items()
        for place, leaf in tensors_of(item, f"{name}/{key}").items()
    }


def assert_same_bits(state: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    found, wanted = tensors_of(state), tensors_of(expected)
    assert found.keys() == wanted.keys()
    for place, value in wanted.items():
        assert torch.equal(torch.as_tensor(found[place]), torch.as_tensor(value)), place


def _toml(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    if path:
        yield f"[{'.'.join(path)}]"
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    for key, value in table.items():
        if key not in tables:
            yield f"{key} = {_value(value)}"
    for key, value in tables.items():
        yield from _toml(value, (*path, key))


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(value)
