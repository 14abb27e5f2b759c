"""Models of a few thousand parameters, data and configurations for the tests of self-play rounds."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reference import fill
from safetensors.torch import save_file

from models import build
from models.spec import (
    DiffusionDefaults,
    Lineage,
    ModelSpec,
    NetworkSpec,
    PixelCodec,
    VarDefaults,
    VqvaeCodec,
)
from models.version import ModelVersion, seal
from trainer.cli import app
from trainer.data.arrays import ArrayImages

CLASSES, SIZE = ("red", "green", "blue", "grey"), 8
EDM = {
    "class_name": "EDMPrecond",
    "model_type": "SongUNet",
    "img_resolution": SIZE // 2,
    "img_channels": 12,
    "label_dim": len(CLASSES),
    "model_channels": 16,
    "channel_mult": [1],
    "num_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.1,
    "label_dropout": 0.1,
}
TOKENIZER = {
    "class_name": "VQVAE",
    "patch_nums": [1, 2, 4],
    "vocab_size": 16,
    "z_channels": 4,
    "ch": 32,
    "ch_mult": [1, 1],
}
VAR = {
    "class_name": "VAR",
    "patch_nums": [1, 2, 4],
    "num_classes": 4,
    "depth": 1,
    "embed_dim": 16,
    "num_heads": 2,
}

CONFIG = """
name = "tiny"
parent = "{parent}"
rounds = {rounds}

[data]
path = "{data}"
fold = {fold}

[method]
{method}

[pool]
plan = {{ images = 24, seed = 1000 }}
shard_images = 10

[training]
images = 48
batch = 8
averages = {averages}
optimizer = {{ learning_rate = 5e-3, warmup_images = 0 }}
report_steps = 1
checkpoint_seconds = 1e-3

[evaluation]
plan = {{ images = 32, seed = 5 }}
every_images = {every}
extractor = "round_toys:Means"
neighbours = false
{evaluation}
"""
AVERAGES = '[{ kind = "half-life", images = 8 }]'
DIFFUSION_DDO = 'kind = "diffusion-ddo"\nalphas = [1.0]\nbetas = [0.1]'
VAR_DDO = 'kind = "var-ddo"\nalphas = [1.0]\nbetas = [0.05]'


class Means:
    """Mean colours of an image's quarters as features."""

    name = "means"

    def __init__(self, device: object) -> None:
        self.device = device

    def __call__(self, images: np.ndarray) -> np.ndarray:
        half = SIZE // 2
        quarters = images.reshape(len(images), 2, half, 2, half, 3).mean(axis=(2, 4))
        return quarters.reshape(len(images), -1).astype(np.float32)


def paint(path: Path) -> None:
    """Write 8 images of each class, each of its own colour with some noise."""
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [128, 128, 128]])
    labels = np.repeat(np.arange(len(CLASSES)), 8)
    noise = np.random.default_rng(0).integers(-30, 30, (len(labels), SIZE, SIZE, 3))
    ArrayImages((colours[labels][:, None, None] + noise).astype(np.uint8), labels, CLASSES).save(path)


def edm_version(directory: Path) -> ModelVersion:
    """Seal an untrained EDM."""
    defaults = DiffusionDefaults(steps=2, sigma_max=10)
    return sealed(directory, "edm", {"main": EDM}, codec=PixelCodec(fold=2), defaults=defaults)


def var_version(directory: Path) -> ModelVersion:
    """Seal an untrained VAR with an untrained tokenizer."""
    networks = {"main": VAR, "vqvae": TOKENIZER}
    return sealed(directory, "var", networks, codec=VqvaeCodec(), defaults=VarDefaults())


def sealed(directory: Path, family: str, networks: Mapping[str, dict[str, Any]], **spec: Any) -> ModelVersion:
    """Seal a version of networks filled by the vectors' rule."""
    directory.mkdir(parents=True)
    for name, init in networks.items():
        network = fill(build(init, TOKENIZER if name == "main" and family == "var" else None))
        save_file(dict(network.state_dict()), directory / f"{name}.safetensors")
    (directory / "ATTRIBUTION.md").write_text("Painted by a test.\n")
    fields = {"class_names": CLASSES, "licence": "Apache-2.0", "lineage": Lineage(source="a test"), **spec}
    specs = {name: NetworkSpec(init=init, weights=f"{name}.safetensors") for name, init in networks.items()}
    return seal(directory, ModelSpec(name="tiny", family=family, networks=specs, **fields))


def write_config(directory: Path, method: str = DIFFUSION_DDO, **fields: object) -> Path:
    """Write a configuration, and beside it the data and the parent that it names; give its path."""
    family = "var" if "var-ddo" in method or "likelihood" in method else "edm"
    parent = directory / family
    if not parent.exists():
        paint(directory / "data.npz")
        {"edm": edm_version, "var": var_version}[family](parent)
    places = {"parent": parent, "data": directory / "data.npz", "fold": 2 if family == "edm" else 1}
    path = directory / "run.toml"
    path.write_text(
        CONFIG.format(
            **{
                **places,
                "method": method,
                "rounds": 2,
                "every": 24,
                "averages": AVERAGES,
                "evaluation": "",
                **fields,
            }
        )
    )
    return path


def start(*arguments: object, kill: tuple[str, int] | None = None, rank: str = "") -> BaseProcess:
    """Start `python -m trainer ARGUMENTS` in a process of its own, on one thread.

    Args:
        arguments: of the command line.
        kill: a pattern and a number: the process kills itself when it syncs a file of such a path for that
            time, half of which is lost.
        rank: `RANK/COUNT:PORT` where several train together.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trainer.cli", "torch._dynamo"])
    process = context.Process(target=_command, args=([str(word) for word in arguments], kill, rank))
    process.start()
    return process


def run(*arguments: object, kill: tuple[str, int] | None = None) -> int | None:
    """Run a command to its end as `start` does; return its exit code."""
    process = start(*arguments, kill=kill)
    process.join(120)
    return process.exitcode


def _command(arguments: Sequence[str], kill: tuple[str, int] | None, rank: str) -> None:
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    if kill is not None:
        os.fsync = _deadly(*kill)  # type: ignore[assignment]
    if rank:
        number, count, port = re.split("[/:]", rank)
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, **place})
    app(arguments)


def _deadly(pattern: str, times: int) -> Any:
    sync, left = os.fsync, times

    def fsync(descriptor: int) -> None:
        nonlocal left
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        left -= bool(re.search(pattern, path))
        if not left:
            if Path(path).is_file():
                os.truncate(path, Path(path).stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    return fsync
