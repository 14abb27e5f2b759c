"""Small sets of images for the tests of training data."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from PIL import Image

SIDE = 8


def noise(seed: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """An image (H, W, 3) that no other seed gives."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(image: np.ndarray | Image.Image) -> bytes:
    return encoded(image, "PNG")


def encoded(image: np.ndarray | Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def write_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def two_classes(root: Path, count: int = 3) -> Path:
    """Folders `cat` and `dog` with `count` images each; cats have even seeds."""
    names = [
        (f"{name}/{i}.png", png(noise(2 * i + label)))
        for label, name in enumerate(("cat", "dog"))
        for i in range(count)
    ]
    return write_folder(root, dict(names))


def write_zip(path: Path, members: Mapping[str, bytes], index: object = None) -> Path:
    """An archive with these members, and `dataset.json` unless `index` is None."""
    with ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if index is not None:
            archive.writestr("dataset.json", index if isinstance(index, str) else json.dumps(index))
    return path


def labelled_zip(
    path: Path, members: Mapping[str, bytes], labels: list[int], names: list[str] | None = None
) -> Path:
    index: dict[str, object] = {"labels": [list(pair) for pair in zip(members, labels, strict=True)]}
    return write_zip(path, members, index if names is None else {**index, "class_names": names})


def claims(width: int, height: int) -> bytes:
    """A PNG whose header says it is this large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    rest = png(noise(0))[33:]
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + rest
