"""From images to chunks to one file: .npz or zip, never all images in memory."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from server.encoding import encode
from server.image_format import ImageFormat
from server.jobs.plan import JobPlan, ResultFormat
from server.scheduling.ticket import Image

NO_CLASS = -1
# The earliest time that a zip archive can tell: equal jobs give equal bytes.
LONG_AGO = (1980, 1, 1, 0, 0, 0)


class Packing(Protocol):
    """How images become a result."""

    def pack(self, plan: JobPlan, start: int, images: Sequence[Image]) -> bytes:
        """Return a chunk of images, (H, W, 3) uint8 RGB, from place `start` on."""
        ...

    def assemble(self, plan: JobPlan, chunks: Iterable[bytes], file: BinaryIO) -> None:
        """Write the result of all chunks, which come in order."""
        ...


class NpzPacking:
    """The .npz that tools for FID read: `arr_0` (N, H, W, 3) uint8 RGB, as ADM's evaluator wants it.

    Beside it are `labels` (N,), -1 for no class, and `seeds` (N,), both int64.
    """

    def pack(self, plan: JobPlan, start: int, images: Sequence[Image]) -> bytes:
        """Return the chunk as an .npy."""
        buffer = io.BytesIO()
        np.save(buffer, np.stack(images), allow_pickle=False)
        return buffer.getvalue()

    def assemble(self, plan: JobPlan, chunks: Iterable[bytes], file: BinaryIO) -> None:
        """Write the archive, pixels as they are."""
        with zipfile.ZipFile(file, "w") as archive:
            with archive.open(zipfile.ZipInfo("arr_0.npy", LONG_AGO), "w", force_zip64=True) as member:
                headed = False
                for chunk in chunks:
                    images: npt.NDArray[np.uint8] = np.load(io.BytesIO(chunk), allow_pickle=False)
                    if not headed:
                        header = np.lib.format.header_data_from_array_1_0(images)
                        header["shape"] = (plan.n, *images.shape[1:])
                        np.lib.format.write_array_header_1_0(member, header)
                        headed = True
                    member.write(images.tobytes())
            labels = [plan.class_id(index) for index in range(plan.n)]
            _write_array(archive, "labels", [NO_CLASS if label is None else label for label in labels])
            _write_array(archive, "seeds", [plan.seed(index) for index in range(plan.n)])


class ZipPacking:
    """PNG files in a zip archive, laid out as EDM's dataset tool does: `dataset.json` holds the labels.

    A member's name tells place, class and seed: `00000/00000207_class0207_seed1207.png`.
    """

    def pack(self, plan: JobPlan, start: int, images: Sequence[Image]) -> bytes:
        """Return the chunk as a zip archive of its own."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for index, image in enumerate(images, start):
                archive.writestr(
                    zipfile.ZipInfo(member_name(plan, index), LONG_AGO), encode(image, ImageFormat.PNG)
                )
        return buffer.getvalue()

    def assemble(self, plan: JobPlan, chunks: Iterable[bytes], file: BinaryIO) -> None:
        """Write the archive; PNGs are not compressed again."""
        with zipfile.ZipFile(file, "w") as archive:
            for chunk in chunks:
                with zipfile.ZipFile(io.BytesIO(chunk)) as part:
                    for name in part.namelist():
                        archive.writestr(zipfile.ZipInfo(name, LONG_AGO), part.read(name))
            labels = [(member_name(plan, index), plan.class_id(index)) for index in range(plan.n)]
            index = (
                {"labels": labels, "class_names": plan.class_names} if plan.class_names else {"labels": None}
            )
            archive.writestr(zipfile.ZipInfo("dataset.json", LONG_AGO), json.dumps(index))


PACKINGS: Mapping[ResultFormat, Packing] = {ResultFormat.NPZ: NpzPacking(), ResultFormat.ZIP: ZipPacking()}


def member_name(plan: JobPlan, index: int) -> str:
    """Return the name of an image in a zip archive; names are in the order of places."""
    class_id = plan.class_id(index)
    label = "" if class_id is None else f"_class{class_id:04d}"
    return f"{index // 1000:05d}/{index:08d}{label}_seed{plan.seed(index)}.png"


def _write_array(archive: zipfile.ZipFile, name: str, numbers: Sequence[int]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array(numbers, np.int64), allow_pickle=False)
    archive.writestr(zipfile.ZipInfo(f"{name}.npy", LONG_AGO), buffer.getvalue())
