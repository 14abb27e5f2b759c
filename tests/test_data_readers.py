"""Training images are read exactly, wherever they lie, by any number of processes."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch
from image_sets import SIDE, encoded, labelled_zip, noise, npy, png, write_zip
from PIL import Image

from models.spec import SdVaeCodec
from trainer.data.arrays import ArrayImages
from trainer.data.config import DataConfig
from trainer.data.edm_zip import ZipImages
from trainer.data.open import open_images
from trainer.data.source import TrainingImages

SEEDS = (3, 1, 4, 1, 5, 9)
LABELS = [0, 1, 0, 2, 1, 2]


def arrays(path: Path) -> Path:
    ArrayImages(np.stack([noise(seed) for seed in SEEDS]), np.array(LABELS), ("a", "b", "c")).save(path)
    return path


def archive(path: Path) -> Path:
    return labelled_zip(path, {f"00000/img{i:08d}.png": png(noise(s)) for i, s in enumerate(SEEDS)}, LABELS)


def all_of(images: TrainingImages) -> torch.Tensor:
    return images.read(np.arange(len(images)))


def levels(images: torch.Tensor) -> np.ndarray:
    return ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(("write", "name"), [(arrays, "set.npz"), (archive, "set.zip")])
def test_pixels_are_exact(write, name: str, tmp_path: Path) -> None:
    images = open_images(DataConfig(path=write(tmp_path / name)))
    assert (len(images), images.shape) == (6, (3, SIDE, SIDE))
    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == LABELS
    read = all_of(images)
    assert read.dtype == torch.float32
    assert read.is_contiguous()
    assert read.min() >= -1
    assert read.max() <= 1
    assert np.array_equal(levels(read), np.stack([noise(seed) for seed in SEEDS]))
    assert torch.equal(images.read(np.array([5, 0, 0])), read[[5, 0, 0]])


@pytest.mark.parametrize(("write", "name"), [(arrays, "set.npz"), (archive, "set.zip")])
def test_squares_of_pixels_are_folded_into_channels(write, name: str, tmp_path: Path) -> None:
    plain = all_of(open_images(DataConfig(path=write(tmp_path / name))))
    folded = open_images(DataConfig(path=tmp_path / name, fold=2))
    assert folded.shape == (12, SIDE // 2, SIDE // 2)
    assert torch.equal(torch.nn.functional.pixel_shuffle(all_of(folded), 2), plain)


def test_members_may_be_packed_and_of_any_format(tmp_path: Path) -> None:
    first = noise(0)
    with ZipFile(tmp_path / "set.zip", "w", ZIP_DEFLATED) as file:
        file.writestr("a.npy", npy(first.transpose(2, 0, 1)))
        file.writestr("b/c.bmp", encoded(first, "BMP"))
        file.writestr("b/d.png", png(first))
        file.writestr("notes.txt", b"no image")
        file.writestr("dataset.json", json.dumps({"labels": None, "made_by": "hand"}))
    images = open_images(DataConfig(path=tmp_path / "set.zip"))
    assert np.array_equal(levels(all_of(images)), np.stack([first] * 3))
    assert images.class_names == ("all",), "a set without labels is one class"
    assert images.labels.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (SIDE, SIDE), 7), (7, 7, 7)),
        (Image.new("1", (SIDE, SIDE), 1), (255, 255, 255)),
        (Image.new("LA", (SIDE, SIDE), (7, 0)), (255, 255, 255)),
        (Image.new("RGBA", (SIDE, SIDE), (10, 20, 30, 255)), (10, 20, 30)),
        (Image.new("RGBA", (SIDE, SIDE), (0, 0, 255, 51)), (204, 204, 255)),
        (
            Image.new("RGB", (SIDE, SIDE), (10, 20, 30)).convert("P", palette=Image.Palette.ADAPTIVE),
            (10, 20, 30),
        ),
    ],
    ids=["grey", "black and white", "transparent grey", "opaque", "transparent", "palette"],
)
def test_every_kind_of_image_becomes_rgb_on_white(
    image: Image.Image, expected: tuple[int, int, int], tmp_path: Path
) -> None:
    write_zip(tmp_path / "set.zip", {"a.png": png(image)})
    pixels = levels(all_of(open_images(DataConfig(path=tmp_path / "set.zip"))))
    assert (pixels == expected).all()


@pytest.mark.parametrize(
    ("index", "names"), [({}, ("0", "1")), ({"class_names": ["cat", "dog"]}, ("cat", "dog"))]
)
def test_classes_have_names_or_numbers(
    index: dict[str, object], names: tuple[str, ...], tmp_path: Path
) -> None:
    pairs = [["b.png", 0], ["a.png", 1]]
    path = write_zip(
        tmp_path / "set.zip", {"a.png": png(noise(0)), "b.png": png(noise(1))}, {"labels": pairs, **index}
    )
    images = open_images(DataConfig(path=path))
    assert images.class_names == names
    assert images.labels.tolist() == [1, 0], "labels go by name, not by order"


def test_styles_are_chosen(tmp_path: Path) -> None:
    pixels = np.stack([noise(seed) for seed in SEEDS])
    styles = np.array([0, 1, 1, 0, 1, 1])
    whole = ArrayImages(pixels, np.array([0, 1, 0, 1, 1, 0]), ("a", "b"), styles, ("flat", "round"))
    whole.save(tmp_path / "set.npz")
    images = open_images(DataConfig(path=tmp_path / "set.npz", styles=("round",)))
    assert np.array_equal(levels(all_of(images)), pixels[styles == 1])
    assert images.labels.tolist() == [1, 0, 1, 0]


def check_reads(images: ZipImages, expected: np.ndarray, seed: int) -> None:
    """Run in a process of its own; an error is its exit code. A forked one must not compute with torch."""
    order = np.random.default_rng(seed)
    for _ in range(100):
        indices = order.permutation(len(images))
        assert np.array_equal(images.pixels(indices), expected[indices])


@pytest.mark.parametrize(("method", "count"), [("fork", 3), ("spawn", 1)])
def test_processes_read_the_same_archive_at_once(method: str, count: int, tmp_path: Path) -> None:
    # Larger than what a file object reads ahead, or processes would share no place in the file anyway.
    large = {f"{seed}.npy": npy(noise(seed, 128, 128).transpose(2, 0, 1)) for seed in range(6)}
    images = open_images(DataConfig(path=write_zip(tmp_path / "set.zip", large)))
    assert isinstance(images, ZipImages)
    expected = images.pixels(np.arange(len(images)))
    context = multiprocessing.get_context(method)
    processes = [context.Process(target=check_reads, args=(images, expected, seed)) for seed in range(count)]
    for process in processes:
        process.start()
    check_reads(images, expected, seed=count)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * count


def moments(seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((8, 3, 2)).astype(np.float32)
    drawn[4:] = np.abs(drawn[4:])
    return drawn


def test_latents_are_drawn_once_and_normalised(tmp_path: Path) -> None:
    codec = SdVaeCodec()
    count = 400
    same = {f"{i:04d}.npy": npy(moments(0)) for i in range(count)}
    images = open_images(DataConfig(path=labelled_zip(tmp_path / "set.zip", same, [0, 1] * (count // 2))))
    assert (len(images), images.shape) == (count, (4, 3, 2))
    latents = all_of(images)
    assert latents.dtype == torch.float32
    assert torch.equal(images.read(np.array([7, 3])), latents[[7, 3]]), "the same index gives the same bits"
    assert not torch.equal(latents[0], latents[1]), "and another index another draw"

    mean, std = (torch.tensor(values)[:, None, None] for values in (codec.mean, codec.std))
    drawn = latents / codec.final_std * std + mean
    expected_mean, expected_std = torch.from_numpy(moments(0)).split(4)
    error = (drawn.mean(0) - expected_mean) / expected_std * count**0.5
    assert error.abs().max() < 5
    assert ((drawn.std(0) / expected_std - 1).abs() < 5 / (2 * count) ** 0.5).all()


def test_latents_without_deviation_are_their_means(tmp_path: Path) -> None:
    codec = SdVaeCodec()
    still = moments(1)
    still[4:] = 0
    images = open_images(DataConfig(path=write_zip(tmp_path / "set.zip", {"a.npy": npy(still)})))
    expected = [(still[c] - codec.mean[c]) / codec.std[c] * 0.5 for c in range(4)]
    np.testing.assert_allclose(all_of(images)[0], np.stack(expected), rtol=1e-5, atol=1e-6)
