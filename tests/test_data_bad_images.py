"""A damaged image, a folder that is no folder a class, a full disk: each is named, nothing half is left."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from image_sets import (
    SIDE,
    claims,
    encoded,
    noise,
    png,
    two_classes,
    write_folder,
)
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
