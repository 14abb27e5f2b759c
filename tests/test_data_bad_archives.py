"""Archives and arrays whose members, labels or names are not as they must be: each fault is named."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from image_sets import (
    SIDE,
    claims,
    labelled_zip,
    noise,
    npy,
    png,
    write_zip,
)
from typer.testing import CliRunner

from trainer.cli import app
from trainer.data.arrays import ArrayImages
from trainer.data.config import DataConfig
from trainer.data.decoding import BadImageError
from trainer.data.open import open_images
from trainer.errors import DataError

PICTURES = {"a.png": png(noise(0)), "b.png": png(noise(1)), "c.png": png(noise(2))}


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"labels": [["a.png", 0], ["b.png", -1], ["c.png", 0]]}, r"b\.png has label -1.* lie in 0 to 2"),
        ({"labels": [["a.png", 0], ["b.png", 9], ["c.png", 0]]}, r"b\.png has label 9"),
        ({"labels": [["a.png", 0], ["b.png", 10**30], ["c.png", 0]]}, "label in dataset.json is no class"),
        ({"labels": [["a.png", 0], ["b.png", 2], ["c.png", 0]]}, r"1 classes have no image, first 1 \(1\)"),
        (
            {"labels": [["a.png", 0], ["b.png", 2], ["c.png", 1]], "class_names": ["x", "y"]},
            r"b\.png has label 2, but labels must lie in 0 to 1",
        ),
        (
            {"labels": [["a.png", 0], ["b.png", 0], ["c.png", 0]], "class_names": ["x", "y"]},
            r"1 classes have no image, first 1 \(y\)",
        ),
        ({"labels": [["a.png", 0], ["c.png", 0]]}, r"b\.png has no label in dataset\.json \(1 have none\)"),
        (
            {"labels": [["a.png", 0], ["b.png", 0], ["c.png", 0], ["d.png", 0]]},
            r"labels d\.png, which is not in",
        ),
        (
            {"labels": [["a.png", 0.5], ["b.png", 0], ["c.png", 0]]},
            r"dataset\.json is not valid: labels\.0\.1",
        ),
        ({"labels": {"a.png": 0}}, r"dataset\.json is not valid: labels"),
        ("{", r"dataset\.json is not valid"),
    ],
)
def test_labels_that_do_not_fit_name_their_image(index: object, message: str, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", PICTURES, index)
    with pytest.raises(DataError, match=rf"set\.zip.*{message}"):
        open_images(DataConfig(path=path))


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "a\\evil.png"])
def test_names_that_leave_the_archive_are_refused(name: str, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", {"a.png": png(noise(0)), name: png(noise(1))})
    with pytest.raises(DataError, match=r"member named .*, outside its own folder"):
        open_images(DataConfig(path=path))


def without_images(path: Path) -> None:
    write_zip(path, {"readme.txt": b"nothing"}, {"labels": []})


def cut(path: Path) -> None:
    write_zip(path, PICTURES)
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_images, "holds no image"),
        (cut, "is not a whole zip archive"),
        (lambda path: path.write_bytes(b""), "is not a whole zip archive"),
        (lambda path: path.write_bytes(b"junk" * 99), "is not a whole zip archive"),
        (lambda path: None, r"cannot read .*set\.zip: No such file"),
    ],
    ids=["no images", "cut", "empty", "junk", "missing"],
)
def test_an_archive_that_is_none_is_refused(
    spoil: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    spoil(tmp_path / "set.zip")
    with pytest.raises(DataError, match=message):
        open_images(DataConfig(path=tmp_path / "set.zip"))


def flipped(path: Path, name: str) -> None:
    """Change a byte in the middle of a stored member."""
    content = bytearray(path.read_bytes())
    with ZipFile(path) as archive:
        info = archive.getinfo(name)
    content[info.header_offset + 30 + len(name) + info.file_size // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["a.png", "c.png"], ids=["first", "last"])
def test_a_damaged_member_is_named_and_fatal_or_left_out(name: str, tmp_path: Path) -> None:
    path = labelled_zip(tmp_path / "set.zip", PICTURES, [0, 1, 0])
    flipped(path, name)
    with pytest.raises(BadImageError, match=rf"set\.zip: {name} cannot be unpacked"):
        open_images(DataConfig(path=path)).read(np.arange(3))
    images = open_images(DataConfig(path=path, on_bad_image="skip"))
    assert len(images) == 2
    assert sorted(images.labels.tolist()) == [0, 1]
    assert images.read(np.arange(2)).shape == (2, 3, SIDE, SIDE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(noise(9, SIDE, 9)), "has 9 x 8 pixels, the first image 8 x 8; .*--size"),
        (claims(9000, 9000), "claims 9000 x 9000 pixels"),
        (b"junk", "is damaged or none of PNG, JPEG"),
    ],
)
def test_a_member_unlike_the_others_is_named_or_left_out(
    content: bytes, message: str, tmp_path: Path
) -> None:
    path = write_zip(tmp_path / "set.zip", {**PICTURES, "d.png": content})
    images = open_images(DataConfig(path=path))
    assert images.read(np.arange(3)).shape == (3, 3, SIDE, SIDE), "the others can still be read"
    with pytest.raises(BadImageError, match=rf"d\.png {message}"):
        images.read(np.array([3]))
    assert len(open_images(DataConfig(path=path, on_bad_image="skip"))) == 3


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", {"a.png": b"junk"})
    with pytest.raises(DataError, match=r"set\.zip holds no image"):
        open_images(DataConfig(path=path, on_bad_image="skip"))


def test_a_member_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("a.png", png(noise(0)))
        archive.writestr("b.png", png(noise(1)))
        archive.getinfo("b.png").file_size = 1 << 30
    images = open_images(DataConfig(path=tmp_path / "set.zip"))
    with pytest.raises(BadImageError, match=r"b\.png unpacks to 1,073,741,824 bytes, more than"):
        images.read(np.array([1]))


def huge_npy() -> bytes:
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (8, 1 << 20, 1 << 20)}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


GOOD = np.ones((8, 2, 2), np.float32)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(GOOD)[:-4], "is not a whole .npy file"),
        (huge_npy(), "is not a whole .npy file"),
        (npy(np.full((8, 2, 2), np.nan, np.float32)), "not finite"),
        (npy(np.array([None])), "is not a whole .npy file"),
        (npy(-GOOD), "negative deviation"),
        (npy(np.ones((7, 2, 2), np.float32)), r"must be floats \(2 C, H, W\)"),
        (npy(np.ones((8, 2, 2), np.uint8)), r"must be floats \(2 C, H, W\)"),
        (npy(np.ones((8, 2, 3), np.float32)), r"has the shape \(8, 2, 3\), the first \(8, 2, 2\)"),
    ],
)
def test_a_bad_latent_is_named_or_left_out(content: bytes, message: str, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", {"a.npy": npy(GOOD), "b.npy": content})
    images = open_images(DataConfig(path=path))
    with pytest.raises(BadImageError, match=rf"set\.zip: b\.npy .*{message}"):
        images.read(np.array([1]))
    assert len(open_images(DataConfig(path=path, on_bad_image="skip"))) == 1


@pytest.mark.parametrize(
    ("members", "settings", "message"),
    [
        (
            {"a.npy": npy(np.ones((6, 2, 2), np.float32))},
            {},
            "must have 8 channels, means and deviations, not 6",
        ),
        ({"a.npy": npy(GOOD)}, {"fold": 2}, "holds latents, which are not folded"),
        ({"a.npy": npy(np.ones((4, 2, 2), np.uint8))}, {}, r"must be uint8 \(3, H, W\)"),
        (PICTURES, {"fold": 3}, "images of 8 x 8 pixels cannot be folded by 3"),
        (PICTURES, {"styles": ("flat",)}, "has no styles to choose from"),
    ],
)
def test_what_does_not_suit_the_configuration_is_refused(
    members: dict[str, bytes], settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = write_zip(tmp_path / "set.zip", members)
    with pytest.raises(DataError, match=message):
        open_images(DataConfig.model_validate({"path": path, **settings}))


def write_npz(path: Path, **changes: np.ndarray) -> None:
    good = {
        "images": np.stack([noise(0), noise(1)]),
        "labels": np.array([0, 1]),
        "style": np.array([0, 0]),
        "style_names": np.array(["flat", "round"]),
        "class_names": np.array(["cat", "dog"]),
    }
    np.savez(path, **{**good, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array([0, 2])}, "image 1 has label 2, but labels must lie in 0 to 1"),
        ({"labels": np.array([-1, 0])}, "image 0 has label -1"),
        ({"labels": np.array([0, 0])}, r"1 classes have no image, first 1 \(dog\)"),
        ({"labels": np.array([0.0, 1.0])}, "labels must be whole numbers, not float64"),
        ({"labels": np.array([0, 1, 1])}, r"labels must be one number an image, \(2,\), not \(3,\)"),
        ({"images": np.zeros((2, 8, 8, 3), np.float32)}, "images must be uint8"),
        ({"images": np.zeros((2, 8, 8, 1), np.uint8)}, "images must be uint8"),
        (
            {
                "images": np.zeros((0, 8, 8, 3), np.uint8),
                "labels": np.zeros(0, int),
                "style": np.zeros(0, int),
            },
            "no image",
        ),
        ({"style": np.array([0, 2])}, "the style of image 1 has label 2"),
        ({"style": np.array([0, 1])}, r"1 classes have no image, first 1 \(dog\)"),
        ({"style_names": np.array(["oil", "ink"])}, r"unknown styles \['flat'\]; known: oil, ink"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    changes: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    write_npz(tmp_path / "set.npz", **changes)
    with pytest.raises(DataError, match=rf"set\.npz.*{message}"):
        open_images(DataConfig(path=tmp_path / "set.npz", styles=("flat",)))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    np.save(tmp_path / "one", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:100])
    (tmp_path / "junk.npz").write_bytes(b"junk")
    write_npz(tmp_path / "plain.npz")
    for name, message in {
        "missing": "cannot read the data set .*No such file",
        "cut": "cannot read the data set",
        "junk": "cannot read the data set",
        "one": "it is not an .npz",
        "other": r"lacks the arrays \['class_names', 'labels'\]",
    }.items():
        with pytest.raises(DataError, match=message):
            open_images(DataConfig(path=tmp_path / f"{name}.npz"))
    with pytest.raises(DataError, match=r"neither \.npz nor \.zip; `python -m trainer data folder` makes"):
        open_images(DataConfig(path=tmp_path))
    with pytest.raises(DataError, match="the set has no styles"):
        ArrayImages(np.stack([noise(0)]), np.array([0]), ("a",)).of_styles("flat")


def test_show_reports_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(b"junk")
    result = CliRunner().invoke(app, ["data", "show", str(tmp_path / "set.zip")])
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert "is not a whole zip archive" in result.output
    assert len(result.output.splitlines()) == 1
