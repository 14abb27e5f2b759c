"""The recipes of the published models: what they say holds together, and each one runs when it is made small.

Small are the network, the images and the counts alone. The commands are those at the top of each recipe.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_sets import noise, png, write_folder
from PIL import Image
from reference import DATA
from typer.testing import CliRunner

from models import build
from models.catalogue import catalogue
from models.checkpoints.loading import Checkpoint
from models.convert import publish
from models.networks.autoencoder import CHANNEL_MULTIPLIERS
from models.registry import Registry
from trainer.cli import app
from trainer.config import load_config
from trainer.rounds.config import DdoSweep, RoundsConfig
from trainer.training.processes import Processes

CONFIGS = Path(__file__).parent.parent / "trainer" / "configs"
PUBLISHED: dict[str, dict[str, str]] = {
    "cifar10-edm-ddo": {"main": "edm-cifar10-cond-vp"},
    "imagenet64-edm2-s-ddo": {"main": "edm2-img64-s"},
    "imagenet512-edm2-l-ddo": {"main": "edm2-img512-l", "guide": "edm2-img512-xs"},
    "var-d16-ddo": {"main": "var_d16", "vqvae": "vae_ch160v4096z32"},
    "var-d30-ddo": {"main": "var_d30", "vqvae": "vae_ch160v4096z32"},
}
GPUS = 8
CLASSES, BATCH, SIDE = 4, 4, 8
TOKENS = {"patch_nums": [1, 2, 4], "vocab_size": 16, "z_channels": 4}
UNET = {
    "label_dim": CLASSES,
    "model_channels": 16,
    "channel_mult": [1],
    "num_blocks": 1,
    "attn_resolutions": [],
}
SMALL_NETWORKS: Mapping[str, dict[str, Any]] = {
    "EDMPrecond": {**UNET, "img_resolution": SIDE},
    "Precond": {**UNET, "img_resolution": SIDE},
    "VAR": {**TOKENS, "num_classes": CLASSES, "depth": 1, "embed_dim": 16, "num_heads": 2},
    "VQVAE": {**TOKENS, "ch": 32, "ch_mult": [1, 1]},
}
SMALL_COUNTS = {
    "rounds": 1,
    "batch": BATCH,
    "microbatch": BATCH // 2,
    "rows": BATCH,
    "steps": 2,
    "shard_images": BATCH,
    "every_images": 2 * BATCH,
}


class MeanColour:
    """A cheap extractor."""

    name = "mean-colour"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return images.mean(axis=(1, 2), dtype=np.float32)


EXTRACTOR = f"{__name__}:{MeanColour.__name__}"


def recipe_file(recipe: str) -> Path:
    return CONFIGS / f"{recipe}.toml"


def published_init(file: str) -> dict[str, Any]:
    """Return a published network's constructor arguments as the registry holds them."""
    init: dict[str, Any] = json.loads((DATA / f"{file}.json").read_text())["init"]
    kind = {"var": "VAR", "vae": "VQVAE"}.get(file[:3])
    return init if kind is None else {"class_name": kind, **init}


def commands(recipe: str) -> list[list[str]]:
    """Return the commands at the top of a recipe, word by word."""
    header = re.match(r"(?:#.*\n)+", recipe_file(recipe).read_text())
    assert header is not None
    indented = re.findall(r"^#   +(.*)$", header[0], re.MULTILINE)
    return [shlex.split(line) for line in "\n".join(indented).replace("\\\n", "").splitlines()]


def image_side(recipe: str) -> int:
    """Return the side in pixels of the images that the published model makes."""
    networks = {name: published_init(file) for name, file in PUBLISHED[recipe].items()}
    if "vqvae" in networks:
        return int(networks["vqvae"]["patch_nums"][-1]) << (len(CHANNEL_MULTIPLIERS) - 1)
    latent = catalogue()[load_config(recipe_file(recipe), RoundsConfig).parent].codec.kind == "sd-vae"
    return int(networks["main"]["img_resolution"]) * (8 if latent else 1)


def small(value: Any, share: float) -> Any:
    """Return a part of a recipe with its counts made small; those of training keep their proportions."""
    if isinstance(value, list):
        return [small(item, share) for item in value]
    if not isinstance(value, dict):
        return value
    made = {}
    for key, inner in value.items():
        if key == "plan":
            made[key] = {**small(inner, share), "images": 2 * CLASSES}
        elif key in SMALL_COUNTS:
            made[key] = SMALL_COUNTS[key]
        elif key.endswith("images"):
            made[key] = max(1, round(inner * share))
        else:
            made[key] = EXTRACTOR if key == "extractor" else small(inner, share)
    return made


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def write_small(recipe: str, path: Path) -> RoundsConfig:
    """Write the recipe for two steps."""
    content = tomllib.loads(recipe_file(recipe).read_text())
    made = small(content, 2 * BATCH / content["training"]["images"])
    made["training"]["report_steps"] = 1
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in made.items()))
    return load_config(path, RoundsConfig)


@torch.no_grad()
def small_state(init: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return fresh weights, some noise added: those that start at zero would hide all others."""
    torch.manual_seed(0)
    network = build(init)
    for parameter in network.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return network.state_dict()


def publish_small_parent(recipe: str, parent: str) -> None:
    """Publish what `models pull` would, with the same classes of networks and the same codec, but tiny."""
    spec = catalogue()[parent].spec()
    networks = {}
    for name, file in PUBLISHED[recipe].items():
        full = published_init(file)
        init = {**full, **SMALL_NETWORKS[full["class_name"]]}
        networks[name] = Checkpoint(Path(file), small_state(init), init)
    few = spec.model_copy(update={"class_names": spec.class_names[:CLASSES]})
    publish(few, networks, Registry(Path("registry")), source="a test")


def save_sources(recipe: str) -> None:
    """Put what the commands start from where they look for it, in the working directory."""
    if "cifar10" in recipe:
        save_cifar10()
    else:
        files = {f"n{i % CLASSES:08d}/{i}.png": png(noise(i, 40, 48)) for i in range(3 * CLASSES)}
        write_folder(Path("imagenet/train"), files)
    if "512" in recipe:
        save_vae()


def save_cifar10() -> None:
    import datasets  # noqa: PLC0415 - it takes seconds

    names = [str(label) for label in range(CLASSES)]
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    labels = [i % CLASSES for i in range(3 * CLASSES)]
    rows = {"img": [Image.fromarray(noise(i)) for i in range(len(labels))], "label": labels}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk("uoft-cs/cifar10")


def save_vae() -> None:
    from diffusers import AutoencoderKL  # noqa: PLC0415 - it takes seconds

    AutoencoderKL(
        latent_channels=4,
        block_out_channels=(4, 4, 4, 4),
        norm_num_groups=2,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).save_pretrained("stabilityai/sd-vae-ft-mse")


def run(arguments: list[str], recipe: str) -> None:
    """Run a command of a recipe on small images and the CPU."""
    side = SIDE * 8 if "512" in recipe else SIDE
    instead = {"cuda": "cpu", "inception-v3": EXTRACTOR, str(image_side(recipe)): str(side)}
    result = CliRunner().invoke(app, [instead.get(word, word) for word in arguments])
    assert result.exit_code == 0, f"{arguments}: {result.output} {result.exception!r}"


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_a_recipe_fits_its_model_and_eight_gpus(recipe: str) -> None:
    config = load_config(recipe_file(recipe), RoundsConfig)
    parent = catalogue()[config.parent]
    assert parent.round == 0
    assert parent.files.keys() == PUBLISHED[recipe].keys()
    assert config.name not in catalogue()  # our own weights never pass for the authors'
    for file in PUBLISHED[recipe].values():
        with torch.device("meta"):
            build(published_init(file))

    training = config.training
    share = Processes(GPUS - 1, GPUS, torch.device("cpu")).share(range(training.batch), training.microbatch)
    assert share[-1].stop == training.batch
    assert config.pool.plan.images % (GPUS * config.pool.shard_images) == 0
    judged = config.evaluation.plan
    assert judged.images == 50_000
    assert (
        judged.seed + judged.images <= config.pool.plan.seed
    )  # models are not chosen by images of their pool
    assert config.evaluation.extractor == "inception-v3"


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_the_commands_of_a_recipe_name_its_files(recipe: str) -> None:
    config = load_config(recipe_file(recipe), RoundsConfig)
    pull, *data, statistics, ddo = commands(recipe)
    assert pull == ["python", "-m", "models", "pull", config.parent]
    assert str(config.data.path) in data[-1]
    assert str(config.evaluation.reference) in statistics
    assert ddo[:3] == ["torchrun", "--nproc-per-node", str(GPUS)]
    assert ddo[3:7] == ["-m", "trainer", "ddo", f"trainer/configs/{recipe}.toml"]
    sizes = {line[line.index("--size") + 1] for line in data if "--size" in line}
    assert sizes <= {str(image_side(recipe))}


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_a_small_recipe_makes_two_steps(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = write_small(recipe, Path("small.toml"))
    publish_small_parent(recipe, config.parent)
    save_sources(recipe)
    _, *data, ddo = commands(recipe)
    for command in data:
        run(command[3:], recipe)
    run(["small.toml" if word.endswith(".toml") else word for word in ddo[5:]], recipe)

    (base,) = Path("runs").iterdir()
    assert isinstance(config.method, DdoSweep)
    folders = [f"alpha{s.alpha:g}-beta{s.beta:g}" for s in config.method.strengths]
    for strength, folder in zip(config.method.strengths, folders, strict=True):
        lines = (base / "round-01" / folder / "log.jsonl").read_text().splitlines()
        steps = [step for step in map(json.loads, lines) if "loss" in step]
        assert [step["images"] for step in steps] == [BATCH, 2 * BATCH]
        assert steps[1]["learning_rate"] > 0
        for step in steps:
            # The rate rises from 0: both steps start at the reference, where every log-ratio is 0.
            assert abs(step["real"]) < 0.01
            assert abs(step["fake"]) < 0.01
            assert step["gradient_norm"] > 0
            if config.method.kind == "diffusion-ddo":
                assert step["loss"] == pytest.approx((1 + strength.alpha) * math.log(2), rel=1e-3)
        evaluations = (base / "round-01" / folder / "evaluations.jsonl").read_text().splitlines()
        assert json.loads(evaluations[-1])["images"] == 2 * BATCH
    result = json.loads((base / "round-01" / "result.json").read_text())
    assert result["candidate"] in folders
    assert math.isfinite(result["figures"]["frechet_distance"])
