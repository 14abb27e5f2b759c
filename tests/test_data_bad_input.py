"""Whatever is wrong with images, labels, archives or disks is said in one line that names it."""

from __future__ import annotations

import io
import os
import re
import resource
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from image_sets import SIDE, encoded, labelled_zip, noise, npy, png, two_classes, write_folder, write_zip
from PIL import Image
from rich.progress import Progress
from typer.testing import CliRunner

from trainer.cli import app
from trainer.data.arrays import ArrayImages
from trainer.data.config import DataConfig, OnBadImage
from trainer.data.convert import Conversion, convert
from trainer.data.decoding import BadImageError
from trainer.data.folder import FolderImages
from trainer.data.framing import square
from trainer.data.open import open_images
from trainer.errors import DataError


def pack(root: Path, out: Path, on_bad_image: OnBadImage = "fail", size: int | None = None) -> Conversion:
    frame = partial(square, size=size, method="lanczos")
    progress = Progress(disable=True)
    return convert(FolderImages(root), out, frame=frame, on_bad_image=on_bad_image, progress=progress)


def claims(width: int, height: int) -> bytes:
    """A PNG whose header says it is this large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    rest = png(noise(0))[33:]
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + rest


DAMAGED = {
    "empty": b"",
    "text": b"no image at all",
    "cut png": png(noise(0))[:-60],
    "cut jpeg": encoded(noise(0, 64, 64), "JPEG")[:-400],
    "gif": encoded(noise(0), "GIF"),
    "16 bits": png(Image.fromarray(np.full((SIDE, SIDE), 40000, np.uint16))),
    "bomb": claims(9000, 9000),
    "larger bomb": claims(100_000, 100_000),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_image_is_named_and_fatal_or_skipped(content: bytes, tmp_path: Path) -> None:
    root = two_classes(tmp_path / "src")
    (root / "dog" / "1.png").write_bytes(content)
    out = tmp_path / "set.zip"
    with pytest.raises(BadImageError, match=r"src/dog/1\.png (is damaged|has more than 8 bits|claims)"):
        pack(root, out)
    assert not out.exists()
    done = pack(root, out, "skip")
    assert (done.images, done.classes, len(done.skipped)) == (5, 2, 1)
    assert "src/dog/1.png" in done.skipped[0]
    assert open_images(DataConfig(path=out)).labels.tolist() == [0, 0, 0, 1, 1]


def test_the_command_counts_what_it_skips(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "src")
    (root / "dog" / "1.png").write_bytes(b"junk")
    arguments = ["data", "folder", str(root), str(tmp_path / "set.zip")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert re.search(r"error: .*src/dog/1\.png is damaged", result.output)
    result = CliRunner().invoke(app, [*arguments, "--on-bad-image", "skip"])
    assert result.exit_code == 0
    assert re.search(r"skipped: .*src/dog/1\.png is damaged", result.output)
    assert "5 images, 2 classes, 1 skipped" in result.output


def test_a_file_that_cannot_be_opened_is_a_bad_image(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "src")
    images = FolderImages(root)
    (root / "cat" / "0.png").unlink()
    with pytest.raises(BadImageError, match=r"cannot read .*cat/0\.png: No such file"):
        next(iter(images)).read()


def test_mixed_sizes_are_refused_or_made_alike(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "src")
    (root / "cat" / "2.png").write_bytes(png(noise(4, SIDE, SIDE + 2)))
    with pytest.raises(BadImageError, match=r"cat/2\.png has 10 x 8 pixels, the first image 8 x 8.*--size"):
        pack(root, tmp_path / "set.zip")
    assert pack(root, tmp_path / "set.zip", "skip").images == 5
    assert pack(root, tmp_path / "set.zip", size=SIDE).images == 6


def test_a_class_that_loses_all_its_images_is_fatal(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "src", count=1)
    (root / "dog" / "0.png").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"1 classes have no image, first 1 \(dog\)"):
        pack(root, tmp_path / "set.zip", "skip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["src"]


def link_out(root: Path) -> None:
    (root.parent / "secret.png").write_bytes(png(noise(0)))
    (root / "cat" / "link.png").symlink_to("../../secret.png")


def link_folder(root: Path) -> None:
    (root / "cat" / "more").symlink_to(root / "dog", target_is_directory=True)


def link_class(root: Path) -> None:
    (root.parent / "elsewhere").mkdir()
    (root / "cow").symlink_to(root.parent / "elsewhere", target_is_directory=True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (link_out, r"cat/link\.png is a link to a folder or out of"),
        (link_folder, r"cat/more is a link to a folder or out of"),
        (link_class, r"src/cow is a link to a folder or out of"),
        (lambda root: (root / "cow").mkdir(), "the class folder .*cow is empty"),
        (lambda root: (root / "a.png").write_bytes(b""), r"src/a\.png is of no class"),
        (lambda root: root.rename(root.parent / "gone"), "there is no folder .*src"),
    ],
)
def test_a_folder_that_is_not_a_folder_a_class_is_refused(
    spoil: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    root = two_classes(tmp_path / "src")
    spoil(root)
    with pytest.raises(DataError, match=message):
        FolderImages(root)


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "src", {"a.png": png(noise(0))})
    with pytest.raises(DataError, match="has no class folders; move the images of each class"):
        FolderImages(tmp_path / "src")


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


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "src")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot write .*file/set\.zip: File exists"):
        pack(root, tmp_path / "file" / "set.zip")
    (tmp_path / "taken").mkdir()
    with pytest.raises(DataError, match=r"cannot write .*taken: Is a directory"):
        pack(root, tmp_path / "taken")


@pytest.mark.parametrize("writes", ["zip", "npz"])
def test_a_full_disk_leaves_what_was_there(writes: str, tmp_path: Path) -> None:
    root = two_classes(tmp_path / "src", count=20)
    out = tmp_path / "out" / f"set.{writes}"
    write_folder(out.parent, {out.name: b"what was there"})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(DataError, match=rf"cannot write .*set\.{writes}: File too large; what was there"):
            if writes == "zip":
                pack(root, out)
            else:
                ArrayImages(np.stack([noise(i) for i in range(40)]), np.zeros(40, np.int64), ("a",)).save(out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(out.parent) == [out.name]
    assert out.read_bytes() == b"what was there"


def test_show_reports_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(b"junk")
    result = CliRunner().invoke(app, ["data", "show", str(tmp_path / "set.zip")])
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert "is not a whole zip archive" in result.output
    assert len(result.output.splitlines()) == 1
