"""Folders and Hugging Face sets become archives in EDM's layout: exact, whole, the same bytes every time."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from zipfile import ZipFile

import datasets
import numpy as np
import pytest
from image_sets import SIDE, encoded, noise, png, two_classes, write_folder
from PIL import Image
from typer.testing import CliRunner, Result

from trainer.cli import app
from trainer.data.config import DataConfig
from trainer.data.framing import square
from trainer.data.open import open_images


def pack(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def pixels_in(path: Path) -> np.ndarray:
    images = open_images(DataConfig(path=path))
    levels = (images.read(np.arange(len(images))) + 1) * 127.5
    return levels.round().permute(0, 2, 3, 1).numpy().astype(np.uint8)


def test_a_folder_comes_back_pixel_by_pixel(tmp_path: Path) -> None:
    out = tmp_path / "new" / "set.zip"
    result = pack("folder", two_classes(tmp_path / "src"), out)
    assert result.exit_code == 0, result.output
    assert f"{out}: 6 images, 2 classes" in result.output.replace("\n", "")
    images = open_images(DataConfig(path=out))
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert np.array_equal(pixels_in(out), np.stack([noise(seed) for seed in (0, 2, 4, 1, 3, 5)]))
    assert os.listdir(out.parent) == ["set.zip"]


def test_the_archive_keeps_the_rules_of_the_layout(tmp_path: Path) -> None:
    two_classes(tmp_path / "src", count=501)
    assert pack("folder", tmp_path / "src", tmp_path / "set.zip").exit_code == 0
    with ZipFile(tmp_path / "set.zip") as archive:
        assert archive.testzip() is None
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        index = json.loads(archive.read("dataset.json"))
        names = [name for name in archive.namelist() if name != "dataset.json"]
        assert names[0] == "00000/img00000000.png"
        assert names[999:] == ["00000/img00000999.png", "00001/img00001000.png", "00001/img00001001.png"]
        assert index == {
            "labels": [[name, int(place >= 501)] for place, name in enumerate(names)],
            "class_names": ["cat", "dog"],
        }
        with archive.open(names[-1]) as file, Image.open(file) as image:
            assert (image.format, image.mode) == ("PNG", "RGB")
            assert np.array_equal(np.asarray(image), noise(2 * 99 + 1)), "99.png is the last by name"


def test_the_same_images_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert pack("folder", two_classes(tmp_path / name), tmp_path / f"{name}.zip").exit_code == 0
        os.utime(tmp_path / name / "cat" / "0.png", (1e9, 1e9))
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_files_of_a_class_may_lie_deeper_and_hidden_ones_are_passed_over(tmp_path: Path) -> None:
    root = write_folder(
        tmp_path / "src",
        {
            "b/deep/er/1.webp": encoded(noise(1), "PNG"),
            "b/.DS_Store": b"junk",
            "b/.cache/2.png": b"junk",
            ".git/config": b"junk",
            "a/0.png": png(noise(0)),
        },
    )
    (root / "a" / "1.png").symlink_to(root / "b" / "deep" / "er" / "1.webp")
    assert pack("folder", root, tmp_path / "set.zip").exit_code == 0
    images = open_images(DataConfig(path=tmp_path / "set.zip"))
    assert images.labels.tolist() == [0, 0, 1]
    assert np.array_equal(pixels_in(tmp_path / "set.zip"), np.stack([noise(0), noise(1), noise(1)]))


@pytest.mark.parametrize("method", ["lanczos", "box", "adm"])
def test_size_cuts_the_middle(method: str, tmp_path: Path) -> None:
    wide = np.zeros((40, 100, 3), np.uint8)
    wide[:, :30], wide[:, 30:70], wide[:, 70:] = 255, (10, 200, 30), 255
    tall = np.ascontiguousarray(wide.transpose(1, 0, 2))
    root = write_folder(
        tmp_path / "src", {"a/0.png": png(wide), "a/1.png": png(tall), "a/2.png": png(noise(0))}
    )
    result = pack("folder", root, tmp_path / "set.zip", "--size", SIDE, "--resize", method)
    assert result.exit_code == 0, result.output
    pixels = pixels_in(tmp_path / "set.zip")
    assert pixels.shape == (3, SIDE, SIDE, 3)
    assert (pixels[:2, 2:-2, 2:-2] == (10, 200, 30)).all(), "the sides are cut off"
    assert np.array_equal(pixels[2], noise(0)), "what has the size already is left alone"


def test_box_averages_and_adm_halves_before_it_interpolates() -> None:
    image = Image.fromarray(noise(0, 16, 16))
    means = noise(0, 16, 16).reshape(4, 4, 4, 4, 3).mean((1, 3))
    assert np.abs(np.asarray(square(image, 4, "box")) - means).max() <= 1
    halved = image.resize((8, 8), Image.Resampling.BOX).resize((4, 4), Image.Resampling.BOX)
    assert np.array_equal(np.asarray(square(image, 4, "adm")), np.asarray(halved))
    odd = Image.fromarray(noise(0, 24, 24))
    bicubic = odd.resize((12, 12), Image.Resampling.BOX).resize((7, 7), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(square(odd, 7, "adm")), np.asarray(bicubic))
    assert not np.array_equal(np.asarray(square(odd, 7, "lanczos")), np.asarray(bicubic))


def test_show_says_what_a_set_holds(tmp_path: Path) -> None:
    two_classes(tmp_path / "src")
    (tmp_path / "src" / "cat" / "9.png").write_bytes(png(noise(9)))
    pack("folder", tmp_path / "src", tmp_path / "set.zip")
    result = pack("show", tmp_path / "set.zip")
    assert result.output.splitlines() == [
        "images    7",
        "shape     3 x 8 x 8",
        "classes   2",
        "smallest  1 (dog): 3 images",
        "largest   0 (cat): 4 images",
    ]


SEEDS = (5, 6, 7, 8)


def hub_set(labels: datasets.Value | datasets.ClassLabel, values: list[object]) -> datasets.Dataset:
    features = datasets.Features({"picture": datasets.Image(), "kind": labels})
    pictures = [{"bytes": png(noise(seed)), "path": None} for seed in SEEDS[: len(values)]]
    return datasets.Dataset.from_dict({"picture": pictures, "kind": values}, features=features)


COLUMNS = ("--image-column", "picture", "--label-column", "kind")


@pytest.mark.parametrize(
    ("labels", "values", "names", "expected"),
    [
        (datasets.ClassLabel(names=["sun", "moon"]), [1, 0, 0, 1], ("sun", "moon"), [1, 0, 0, 1]),
        (datasets.Value("int64"), [2, 0, 1, 2], ("0", "1", "2"), [2, 0, 1, 2]),
        (datasets.Value("string"), ["b", "a", "c", "b"], ("a", "b", "c"), [1, 0, 2, 1]),
    ],
    ids=["named", "numbers", "texts"],
)
def test_a_saved_hugging_face_set_keeps_its_order_and_classes(
    labels: datasets.Value, values: list[object], names: tuple[str, ...], expected: list[int], tmp_path: Path
) -> None:
    datasets.DatasetDict({"test": hub_set(labels, values)}).save_to_disk(tmp_path / "hub")
    result = pack("hugging-face", tmp_path / "hub", tmp_path / "set.zip", "--split", "test", *COLUMNS)
    assert result.exit_code == 0, result.output
    images = open_images(DataConfig(path=tmp_path / "set.zip"))
    assert images.class_names == names
    assert images.labels.tolist() == expected
    assert np.array_equal(pixels_in(tmp_path / "set.zip"), np.stack([noise(seed) for seed in SEEDS]))


def test_a_folder_of_parquet_is_a_hugging_face_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "hub").mkdir()
    hub_set(datasets.ClassLabel(names=["sun", "moon"]), [1, 0]).to_parquet(tmp_path / "hub" / "train.parquet")
    result = pack("hugging-face", tmp_path / "hub", tmp_path / "set.zip", *COLUMNS)
    assert result.exit_code == 0, result.output
    assert np.array_equal(pixels_in(tmp_path / "set.zip"), np.stack([noise(5), noise(6)]))


@pytest.mark.parametrize(
    ("values", "arguments", "message"),
    [
        ([0, 1], ("--label-column", "kind"), r"has no column 'image'; it has picture, kind"),
        ([0, 1], ("--image-column", "picture"), r"has no column 'label'; it has picture, kind"),
        ([0, 1], ("--image-column", "kind", "--label-column", "kind"), "column 'kind' .* holds no images"),
        ([0, 1], ("--image-column", "picture", "--label-column", "picture"), "holds no classes"),
        ([0, None], COLUMNS, r"\[train\] row 1 has no label in the column 'kind'"),
        ([0, -1], COLUMNS, r"\[train\] row 1 has label -1, but labels must lie in 0 to"),
        ([0, 2], COLUMNS, r"\[train\] row 1 has label 2, but labels must lie in 0 to"),
        ([0, 1], (*COLUMNS, "--split", "test"), r"has no split 'test'; it has train"),
    ],
)
def test_a_hugging_face_set_that_does_not_fit_is_refused(
    values: list[object], arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    datasets.DatasetDict({"train": hub_set(datasets.Value("int64"), values)}).save_to_disk(tmp_path / "hub")
    result = pack("hugging-face", tmp_path / "hub", tmp_path / "set.zip", *arguments)
    assert result.exit_code == 1
    assert_matches(result, message)
    assert not (tmp_path / "set.zip").exists()


def test_a_hugging_face_label_that_stands_for_none_is_refused(tmp_path: Path) -> None:
    hub_set(datasets.ClassLabel(names=["sun", "moon"]), [0, 1, -1]).save_to_disk(tmp_path / "hub")
    result = pack("hugging-face", tmp_path / "hub", tmp_path / "set.zip", *COLUMNS)
    assert_matches(result, r"\[train\] row 2 has label -1, but labels must lie in 0 to 1")


def test_a_hugging_face_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = pack("hugging-face", tmp_path / "nothing", tmp_path / "set.zip")
    assert result.exit_code == 1
    assert_matches(result, r"cannot load the split 'train' of .*nothing.*download the set elsewhere")


def test_damaged_rows_of_a_hugging_face_set_are_named(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    pictures = [{"bytes": png(noise(0)), "path": None}, {"bytes": b"junk", "path": None}, None]
    whole = datasets.Dataset.from_dict({"image": pictures, "label": [0, 0, 0]}, features=features)
    whole.save_to_disk(tmp_path / "hub")
    result = pack("hugging-face", tmp_path / "hub", tmp_path / "set.zip")
    assert_matches(result, r"\[train\] row 1 is damaged or none of")
    result = pack("hugging-face", tmp_path / "hub", tmp_path / "set.zip", "--on-bad-image", "skip")
    assert_matches(result, r"row 1 is damaged.*row 2 has no image.*1 images, 1 classes, 2 skipped")


def assert_matches(result: Result, message: str) -> None:
    assert re.search(message, " ".join(result.output.split())), result.output
