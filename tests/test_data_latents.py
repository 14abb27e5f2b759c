"""Latents are encoded once, as EDM2 encodes them, by a Stable Diffusion VAE with random weights."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from image_sets import labelled_zip, noise, npy, png, write_zip
from rich.progress import Progress
from typer.testing import CliRunner

from trainer.cli import app
from trainer.data.config import DataConfig
from trainer.data.edm_zip import ZipImages
from trainer.data.encoding import encode_latents
from trainer.data.latents import LatentImages
from trainer.data.open import open_images
from trainer.data.sd_vae import SdVaeEncoder
from trainer.errors import DataError

CPU = torch.device("cpu")
COUNT = 7
LABELS = [0, 1, 0, 1, 1, 0, 0]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    network = AutoencoderKL(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    folder = tmp_path_factory.mktemp("vae")
    network.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    members = {f"{i}.png": png(noise(i, 16, 16)) for i in range(COUNT)}
    return labelled_zip(tmp_path / "images.zip", members, LABELS, ["cat", "dog"])


class Counting(SdVaeEncoder):
    """Counts the images that it encodes, and ends after `limit` as a process does that is killed."""

    def __init__(self, repository: str, limit: int = 1000) -> None:
        super().__init__(repository, CPU)
        self.images, self.limit = 0, limit

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        if self.images >= self.limit:
            raise KeyboardInterrupt
        self.images += len(pixels)
        return super().encode(pixels)


def encode(source: Path, out: Path, encoder: SdVaeEncoder, batch: int = 2) -> None:
    images = open_images(DataConfig(path=source))
    assert isinstance(images, ZipImages)
    encode_latents(images, encoder, out, batch=batch, progress=Progress(disable=True))


def test_latents_hold_what_the_vae_says_of_images_in_the_unit_interval(
    source: Path, repository: str, tmp_path: Path
) -> None:
    out = tmp_path / "latents.zip"
    arguments = ["data", "latents", str(source), str(out), "--vae", repository, "--batch", "3"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "7 images, 2 classes" in result.output
    with ZipFile(out) as archive:
        index = json.loads(archive.read("dataset.json"))
        names = [f"00000/img-mean-std-{i:08d}.npy" for i in range(COUNT)]
        labels = [list(pair) for pair in zip(names, LABELS, strict=True)]
        assert index == {"labels": labels, "class_names": ["cat", "dog"]}
        with archive.open(names[4]) as file:
            moments = np.load(file)
    assert (moments.dtype, moments.shape) == (np.float32, (8, 2, 2))
    network = AutoencoderKL.from_pretrained(repository).eval()
    with torch.inference_mode():
        pixels = torch.from_numpy(noise(4, 16, 16)).permute(2, 0, 1)[None] / 255
        expected = network.encode(pixels).latent_dist
    np.testing.assert_allclose(moments[:4], expected.mean[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moments[4:], expected.std[0], rtol=1e-4, atol=1e-5)
    images = open_images(DataConfig(path=out))
    assert isinstance(images, LatentImages)
    assert images.labels.tolist() == LABELS
    assert images.read(np.arange(COUNT)).shape == (COUNT, 4, 2, 2)


def test_a_killed_run_goes_on_and_gives_the_same_bytes(source: Path, repository: str, tmp_path: Path) -> None:
    encode(source, tmp_path / "whole.zip", Counting(repository))
    killed = tmp_path / "killed.zip"
    with pytest.raises(KeyboardInterrupt):
        encode(source, killed, Counting(repository, limit=4))
    assert not killed.exists()
    rest = Counting(repository)
    encode(source, killed, rest)
    assert rest.images == COUNT - 4
    assert killed.read_bytes() == (tmp_path / "whole.zip").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["images.zip", "killed.zip", "whole.zip"], "no part is left"


@pytest.mark.parametrize("change", ["images", "labels", "batch", "encoder"])
def test_parts_of_another_run_are_not_used(
    change: str, source: Path, repository: str, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        encode(source, tmp_path / "out.zip", Counting(repository, limit=4))
    encoder, batch = Counting(repository), 2
    if change == "images":
        labelled_zip(source, {f"{i}.png": png(noise(i + 1, 16, 16)) for i in range(COUNT)}, LABELS)
    elif change == "labels":
        labelled_zip(source, {f"{i}.png": png(noise(i, 16, 16)) for i in range(COUNT)}, LABELS[::-1])
    elif change == "batch":
        batch = 4
    else:
        encoder.repository = "another"
    encode(source, tmp_path / "out.zip", encoder, batch)
    assert encoder.images == COUNT


def test_images_without_labels_stay_without(repository: str, tmp_path: Path) -> None:
    write_zip(tmp_path / "images.zip", {"a.png": png(noise(0, 8, 8))}, {"labels": None})
    encode(tmp_path / "images.zip", tmp_path / "out.zip", SdVaeEncoder(repository, CPU))
    with ZipFile(tmp_path / "out.zip") as archive:
        assert json.loads(archive.read("dataset.json"))["labels"] is None


def test_what_cannot_be_encoded_is_refused(repository: str, tmp_path: Path) -> None:
    write_zip(tmp_path / "odd.zip", {"a.png": png(noise(0, 12, 12))})
    with pytest.raises(DataError, match="sides that are multiples of 8, not 12 x 12; use --size"):
        encode(tmp_path / "odd.zip", tmp_path / "out.zip", SdVaeEncoder(repository, CPU))
    write_zip(tmp_path / "latents.zip", {"a.npy": npy(np.ones((8, 2, 2), np.float32))})
    result = CliRunner().invoke(
        app, ["data", "latents", str(tmp_path / "latents.zip"), str(tmp_path / "o.zip")]
    )
    assert result.exit_code == 1
    assert re.search(r"error: .*latents\.zip is no \.zip of images", result.output)
    with pytest.raises(DataError, match=r"cannot load .*hf download"):
        SdVaeEncoder(str(tmp_path), CPU)
